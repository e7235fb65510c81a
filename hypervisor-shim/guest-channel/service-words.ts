import { services } from '../../guest-agent/wire/control-page.js';

/** What a guest tells of one of its services, by its place in the image's list: nothing but its word. */
export interface ServiceWord {
  service: number;
  /** Longest time between two signs of life that it has declared, ms; undefined: it gives none. */
  watchdogMs: number | undefined;
  /** Signs of life since it was started. */
  signs: bigint;
  /** Connections that wait to be accepted. */
  queued: number;
  /** Changes when it has accepted something. */
  accepts: bigint;
  /** Somebody inside has stopped it on purpose. */
  isStopped: boolean;
}

/** A shorter time than this is read as this, ms: a guest that is not run for a moment is no fault. */
const LEAST_WATCHDOG_MS = 1000;

/** Of the first `count` services. */
export function readServiceWords(u32: Uint32Array, u64: BigUint64Array, count: number): ServiceWord[] {
  return Array.from({ length: Math.min(count, services.count) }, (_, service) => {
    const at = services.offset + service * services.entryBytes;
    const declared = Atomics.load(u32, (at + services.watchdogMs) / 4);
    return {
      service,
      watchdogMs: declared === 0 ? undefined : Math.max(declared, LEAST_WATCHDOG_MS),
      signs: Atomics.load(u64, (at + services.signs) / 8),
      queued: Atomics.load(u32, (at + services.queued) / 4),
      accepts: Atomics.load(u64, (at + services.accepts) / 8),
      isStopped: Atomics.load(u32, (at + services.stopped) / 4) === 1,
    };
  });
}
