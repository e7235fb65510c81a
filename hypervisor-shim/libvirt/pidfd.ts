import { closeSync } from 'node:fs';
import koffi from 'koffi';

const pidfdOpen = 434;
const syscall = koffi.load('libc.so.6').func('long syscall(long number, long pid, long flags)');

const watched = new Set<() => void>();
// koffi aborts the process if a descriptor becomes readable while Node takes the environment down.
process.once('exit', () => {
  for (const stop of [...watched]) stop();
});

/**
 * Calls `ended` once when process `pid` has ended, however it ended and whoever its parent is (pidfd_open(2)).
 * Returns a function that stops watching, or undefined if there is no such process.
 */
export function watchProcess(pid: number, ended: (atNs: bigint) => void): (() => void) | undefined {
  const fd = Number(syscall(pidfdOpen, pid, 0));
  if (fd < 0) return undefined;
  const stop = () => {
    if (!watched.delete(stop)) return;
    handle.close();
    closeSync(fd);
  };
  const handle = koffi.node.poll(fd, { readable: true }, () => {
    const atNs = process.hrtime.bigint();
    stop();
    ended(atNs);
  });
  watched.add(stop);
  handle.unref();
  return stop;
}
