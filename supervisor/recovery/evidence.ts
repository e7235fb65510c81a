import type { ServiceConfig } from '../config/config.js';

/** How much of each kind of evidence makes a fault, ms; ARCHITECTURE ("How a hang is told from a slow guest") has the figures. */
export interface Limits {
  /** No beat although the machine's threads rest: all vCPUs are halted, and no timer wakes them. */
  haltedMs: number;
  /** No beat although a vCPU runs, for half of the time at least: something runs there that lets nothing else run. */
  busyMs: number;
  /** No beat for so long, corrected by all that can be measured, whatever the threads do. */
  stillMs: number;
  /** No frame although the guest was asked for one. */
  silentMs: number;
}

/**
 * Under emulation a healthy guest's timer waits for the emulator's I/O thread, and an interrupt handler takes ten times as long:
 * beats were seen 130 ms apart.
 */
const EMULATED = { haltedMs: 250, busyMs: 600, stillMs: 3000, silentMs: 300 };

/** What the configuration says, or what suits the accelerator. */
export function limitsFor({ heartbeatMs, misses, ...given }: ServiceConfig['detect'], accel: string): Limits {
  const least = heartbeatMs * misses;
  const usual =
    accel === 'tcg' ? EMULATED : { haltedMs: least, busyMs: least, stillMs: least, silentMs: least };
  return {
    haltedMs: given.haltedMs ?? Math.max(least, usual.haltedMs),
    busyMs: given.busyMs ?? Math.max(least, usual.busyMs),
    stillMs: given.stillMs ?? Math.max(least, usual.stillMs),
    silentMs: given.silentMs ?? Math.max(least, usual.silentMs),
  };
}

/** While connections are replayed: the guest has all the work at once, and there is no other to take it over. */
export function patient(limits: Limits): Limits {
  return { ...limits, busyMs: limits.stillMs, silentMs: limits.stillMs };
}

/** What was seen while the heartbeat stood still. */
export interface Stillness {
  /** Since the last beat, less what we ourselves were late, ms. */
  stillMs: number;
  /** Since the machine's threads are watched: the rest is about this time, ms. */
  watchedMs: number;
  /** See `Usage`. */
  vcpuMs: number;
  emulatorMs: number;
  mainWaitedMs: number;
  vcpuWaitedMs: number;
  stolenMs: number;
  /** Waited for the host's disk or memory, ms, as far as looks at it show. */
  blockedMs: number;
  /** Since the guest's kernel was asked for a frame (see `Silence`) and sent none, ms; 0 if it sent one. */
  unansweredMs: number;
}

/** A kernel that has nothing else to do answers within a millisecond, under emulation within ten. */
const ANSWER_MS = 50;
/**
 * Its vCPUs ran for so long in all, and nothing of it was a beat's: on a host so busy that the excuses add up to all the time there
 * is, this alone tells a hung guest.
 */
const RAN_MS = 3000;
/** A machine rests if it uses less than this share of a CPU: a halted guest still gets frames, which cost it a little. */
const RESTING = 0.1;

/** Why the guest is hung, in words; undefined as long as it may be well. */
export function judgeStillness(s: Stillness, limits: Limits): string | undefined {
  // One may wait for the other while that waits for a CPU, or both may wait at once: the truth is between sum and maximum. Where
  // the evidence is thin, too much is excused: a false alarm costs more than a late one.
  const lostMs = s.blockedMs + s.stolenMs;
  const waitedMs = s.mainWaitedMs + s.vcpuWaitedMs + lostMs;
  const stillMs = s.stillMs - waitedMs;
  const watchedMs = s.watchedMs - waitedMs;
  const text = `its heartbeat stands still for ${s.stillMs.toFixed(0)} ms`;
  if (stillMs >= limits.haltedMs && s.blockedMs === 0 && s.vcpuMs + s.emulatorMs < RESTING * watchedMs) {
    // A kernel that rests and answers is well: only the agent has died, and process 1 starts it again.
    if (s.unansweredMs < ANSWER_MS) return undefined;
    return `${text}, all its vCPUs are halted and it answers no ARP request`;
  }
  const leastMs = s.stillMs - Math.max(s.mainWaitedMs, s.vcpuWaitedMs) - lostMs;
  if (leastMs >= limits.busyMs && s.vcpuMs >= leastMs / 2) {
    return `${text} in which a vCPU ran for ${s.vcpuMs.toFixed(0)} ms`;
  }
  if (s.vcpuMs - lostMs >= RAN_MS)
    return `${text} in which its vCPUs had ${s.vcpuMs.toFixed(0)} ms of CPU time`;
  if (leastMs < limits.stillMs) return undefined;
  const [ran, waited, blocked] = [s.vcpuMs, s.vcpuWaitedMs, s.blockedMs].map(ms => ms.toFixed(0));
  return `${text}, whatever its vCPUs do: one ran for ${ran} ms, waited for ${waited} ms and was blocked for ${blocked} ms`;
}

/** A little later than the end of QEMU, which closes the tap as well, is told by its event. */
const CARRIER_MS = 75;
/** Fewer questions than this may have been lost, or come too late. */
const MIN_ASKED = 3;
/** A beat of the guest's real-time thread, ms, with what its timer may be late. */
const SLOW_BEAT_MS = 20;

/** What was seen while no frame came from the guest. */
export interface Silence {
  /** Carrier of the guest's tap: QEMU holds it open, and nobody has switched it off. */
  carrier: boolean;
  /** How long there is no carrier, ms. */
  carrierLostMs: number;
  /** Since the guest was first asked for a frame and sent none, less what we were late and its threads waited for a CPU, ms. */
  askedMs: number;
  /** How often it was asked. */
  asked: number;
  /** Beats of its heartbeat since: time as it passed in the guest. */
  beats: number;
}

/** Why the link is cut, in words; undefined as long as it may be well. A guest whose heartbeat stands still is judged by that. */
export function judgeSilence(s: Silence, limits: Limits): string | undefined {
  if (!s.carrier && s.carrierLostMs >= CARRIER_MS) return 'its tap has no carrier';
  if (s.asked < MIN_ASKED || s.askedMs < limits.silentMs || s.beats * SLOW_BEAT_MS < limits.silentMs)
    return undefined;
  return `its heart beats, but it answers no ARP request and sends no frame for ${s.askedMs.toFixed(0)} ms`;
}

/** What was seen while clients repeated what the guest did not acknowledge, on any connection. */
export interface Deafness {
  /**
   * How often it was asked by keep-alive probes, a second apart, and how long ago first, ms; 0 when it has answered. Seconds in
   * which its heart did not beat do not count.
   */
  asked: number;
  unansweredMs: number;
}

/** Why no client can be heard by the guest, in words; undefined as long as it may be well. */
export function judgeDeafness({ asked, unansweredMs }: Deafness, limits: Limits): string | undefined {
  // The first unanswered question is noticed when the second is asked.
  if (asked <= MIN_ASKED || unansweredMs < limits.silentMs) return undefined;
  return `it acknowledges nothing that its clients repeat and answers no keep-alive probe for ${unansweredMs.toFixed(0)} ms`;
}
