import { readdirSync, readFileSync } from 'node:fs';
import { now } from '../clock.js';
import type { GuestVm } from '../service/guest.js';
import type { Protection } from '../service/protection.js';

/**
 * Under emulation a healthy guest with 50 busy connections on a crowded host stands still for 0.7 s and more, after all
 * corrections (measured): its vCPU waits for the emulator's I/O thread. Less than this means nothing there.
 */
const TCG_STILL_MS = 3000;

/** A stand-still of the active guest's heartbeat. */
interface Still {
  guest: GuestVm;
  beat: bigint;
  since: number;
  /** Time in which we ourselves were not run, ms. */
  excusedMs: number;
  /** Run delays of the guest's threads when the stand-still was noticed. */
  runDelays: RunDelays | undefined;
}

/**
 * Reads the active guest's control page once in each heartbeat period: keeps the data path's word "listening" in step with
 * the application, and finds a guest that hangs. Panics and dead QEMUs are seen sooner, by events.
 */
export class Pulse {
  #timer: NodeJS.Timeout | undefined;
  #still: Still | undefined;
  #lastTick = 0;
  #application = '';
  readonly #limitMs: number;

  constructor(
    private readonly p: Protection,
    accel: string,
  ) {
    const { heartbeatMs, misses } = p.config.detect;
    this.#limitMs = Math.max(heartbeatMs * misses, accel === 'tcg' ? TCG_STILL_MS : 0);
  }

  start(): void {
    this.#lastTick = now();
    this.#timer = setInterval(() => this.#tick(), this.p.config.detect.heartbeatMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const { p } = this;
    const at = now();
    const lateMs = Math.max(0, at - this.#lastTick - p.config.detect.heartbeatMs);
    this.#lastTick = at;
    const guest = p.primary;
    if (!guest || p.fault || guest.state !== 'active') {
      this.#still = undefined;
      return;
    }
    const { heartbeat, application, pid, exitStatus } = guest.report();
    p.path.setListening(guest.slot, application === 'listening');
    if (application !== this.#application && application === 'exited') {
      const message = `the service in ${guest.name} ended (pid ${pid}, wait status ${exitStatus}); new connections wait`;
      p.say('guest.application', message, { guest: guest.name, pid, exitStatus });
    }
    this.#application = application;

    const still = this.#still;
    if (still?.guest !== guest || still.beat !== heartbeat) {
      this.#still = { guest, beat: heartbeat, since: at, excusedMs: 0, runDelays: undefined };
      return;
    }
    still.excusedMs += lateMs;
    still.runDelays ??= runDelays(guest.pid);
    if (at - still.since - still.excusedMs < this.#limitMs) return;
    const waitedMs = waitedSince(still.runDelays, runDelays(guest.pid));
    const stillMs = at - still.since - still.excusedMs - waitedMs;
    if (stillMs >= this.#limitMs) void this.#suspect(still, at, stillMs);
  }

  /** Not hung is also a guest that the operator, or a panic just now, has paused. */
  async #suspect(still: Still, detectedAt: number, stillMs: number): Promise<void> {
    const { p } = this;
    const runs = await still.guest.runs();
    if (!runs || p.primary !== still.guest || still.guest.report().heartbeat !== still.beat) return;
    p.primaryFailed(
      'guest-hang',
      `${still.guest.name} stands still for ${stillMs.toFixed(0)} ms`,
      detectedAt,
    );
  }
}

/** How long each thread of a process has waited for a CPU so far, ms, by thread id. */
type RunDelays = Map<string, number>;

function runDelays(pid: number | undefined): RunDelays {
  const delays: RunDelays = new Map();
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const [, waited] = readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ');
      delays.set(task, Number(waited) / 1e6);
    }
  } catch {
    // A thread or the process ended meanwhile; the end of the process has an event of its own.
  }
  return delays;
}

/**
 * The sum over all threads, which excuses more than any one of them waited: a false alarm costs more than a late one. Of each
 * thread on its own, because threads come and go.
 */
function waitedSince(before: RunDelays, after: RunDelays): number {
  let sum = 0;
  for (const [task, waited] of after) sum += Math.max(0, waited - (before.get(task) ?? 0));
  return sum;
}
