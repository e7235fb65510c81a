import { loadAddon } from '../native/native.js';

/** Signs of life within the declared time: one may be lost, or late. */
const SIGNS = 3;

export interface Heartbeat {
  /** From now on this process gives no more signs of life: it is taken for wedged unless another of its service does. */
  stop(): void;
}

/**
 * Tells the guest agent, from now on, that this process's event loop turns: thrice in the time that the image declares for its service
 * (`watchdogMs`). A host that hears nothing for that time takes the service for wedged. `isWell` is asked before each sign of life, and may
 * hold it back.
 *
 * Undefined, and nothing happens, where nobody asks for signs of life: `NOTIFY_SOCKET` and `WATCHDOG_USEC` are those of sd_watchdog_enabled(3).
 */
export function heartbeat(isWell: () => boolean = () => true): Heartbeat | undefined {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec } = process.env;
  const everyMs = Number(usec) / 1000 / SIGNS;
  if (!socket || !(everyMs > 0)) return undefined;
  const { notify } = loadAddon();
  const beat = () => {
    if (!isWell()) return;
    try {
      notify(socket, 'WATCHDOG=1');
    } catch {
      // The agent starts again, or is late; the next one will get through.
    }
  };
  beat();
  const timer = setInterval(beat, everyMs).unref();
  return { stop: () => clearInterval(timer) };
}
