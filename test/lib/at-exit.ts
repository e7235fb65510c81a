/** What lives outside this process, and must not outlive it. */
export interface Disposable {
  /** Ends and removes it. Safe to call again. */
  dispose(): Promise<void>;
  /** Last resort on the way out: without waiting. */
  disposeNow(): void;
  /** When all are disposed of after a signal: what others had still held. */
  sweepUp?(): void;
}

const open = new Set<Disposable>();
let hooked = false;

/** It is disposed of when this process ends or is interrupted, unless `settled` comes first. */
export function disposeAtExit(what: Disposable): void {
  open.add(what);
  if (hooked) return;
  hooked = true;
  process.on('exit', () => {
    for (const one of open) one.disposeNow();
  });
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)
    process.once(signal, () => {
      const all = [...open];
      void Promise.allSettled(all.map(one => one.dispose())).then(() => {
        for (const one of all) one.sweepUp?.();
        process.exit(status);
      });
    });
}

/** It has been disposed of. */
export function settled(what: Disposable): void {
  open.delete(what);
}
