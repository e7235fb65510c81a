import { setTimeout as sleep } from 'node:timers/promises';
import { describeStatus } from '../../hypervisor-shim/guest-channel/crash-list.js';
import type { GuestReport } from '../../hypervisor-shim/guest-channel/guest-channel.js';
import { now } from '../clock.js';
import type { GuestVm } from '../service/guest.js';
import type { Fault, Protection } from '../service/protection.js';
import { Acknowledgements } from './acknowledgements.js';
import { AgentWatch, beatOf } from './agent-watch.js';
import { judgeDeafness, judgeSilence, judgeStillness, type Limits, limitsFor, patient } from './evidence.js';
import type { InPlace } from './in-place.js';
import { Link } from './link.js';
import { readThreads, type Threads, usedSince } from './threads.js';

/** An emulator that does not answer for so long is as good as hung itself, ms; one that does has a beat's time to show it. */
const EMULATOR_MS = 1000;
const BEAT_MS = 20;

/** What is watched of the active guest, from its activation to its end. */
interface Watch {
  guest: GuestVm;
  link: Link;
  acknowledgements: Acknowledgements;
  /** See `beatOf`. */
  beat: bigint;
  since: number;
  /** Time in which we ourselves were not run, ms, since the last beat. */
  lateMs: number;
  /** The machine's threads when the stand-still was noticed. */
  threads: { at: number; lateMs: number; are: Threads } | undefined;
  /** Time in which a thread of the machine waited for the host's disk or memory, ms, since the last beat. */
  blockedMs: number;
}

/**
 * Reads the control page of a guest that serves and its tap once in each heartbeat period: keeps the data path's word "listening" in step
 * with the application, and finds a guest that hangs, is cut off, shuts down, or has lost its service. Panics and dead QEMUs are seen sooner, by events.
 */
export class Pulse {
  #timer: NodeJS.Timeout | undefined;
  #watch: Watch | undefined;
  #lastTick = 0;
  #asking = false;
  readonly #agent: AgentWatch;
  readonly #usual: Limits;
  readonly #patient: Limits;

  constructor(
    private readonly p: Protection,
    private readonly inPlace: Pick<InPlace, 'serviceDied'>,
    accel: string,
    /** Which of the guests that serve it watches. */
    private readonly role: 'primary' | 'leaving' = 'primary',
  ) {
    this.#agent = new AgentWatch(p);
    this.#usual = limitsFor(p.config.detect, accel);
    this.#patient = patient(this.#usual);
  }

  start(): void {
    this.#lastTick = now();
    this.#timer = setInterval(() => this.#tick(), this.p.config.detect.heartbeatMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#forget();
  }

  /** Since the active guest's heartbeat last moved, ms; undefined while none is watched. */
  get heartbeatAgeMs(): number | undefined {
    return this.#watch && now() - this.#watch.since;
  }

  get #limits(): Limits {
    return this.p.replaying ? this.#patient : this.#usual;
  }

  #tick(): void {
    const { p } = this;
    const at = now();
    const lateMs = Math.max(0, at - this.#lastTick - p.config.detect.heartbeatMs);
    this.#lastTick = at;
    const guest = p[this.role];
    if (!guest || p.fault || guest.state !== 'active') {
      this.#forget();
      return;
    }
    const report = guest.report();
    const { heartbeat } = report;
    const beat = beatOf(report);
    this.#agent.look(guest.name, report, at);
    this.#listen(guest, report, at);
    if (p.fault || p[this.role] !== guest) return;
    if (this.#watch?.guest !== guest) this.#forget();
    this.#watch ??= watchOf(p, guest, beat, at);
    const watch = this.#watch;
    const beats = watch.beat !== beat;
    if (beats) Object.assign(watch, standing(beat, at));
    const silence = watch.link.look(at, lateMs, heartbeat, !beats);
    const deafness = watch.acknowledgements.look(at, heartbeat);
    const cut = judgeSilence(silence, this.#limits) ?? judgeDeafness(deafness, this.#limits);
    if (cut) void this.#suspect('link-cut', watch, cut);
    const hung = beats ? undefined : this.#judgeStill(watch, at, lateMs, silence.askedMs);
    if (hung) void this.#suspect('guest-hang', watch, hung);
  }

  #forget(): void {
    this.#watch?.link.close();
    this.#watch?.acknowledgements.close();
    this.#watch = undefined;
  }

  /** Follows what the agent says of the application. */
  #listen(guest: GuestVm, { application, pid, exitStatus }: GuestReport, at: number): void {
    const { p } = this;
    // A service that is started again is let in to by who replays its connections.
    p.path.setListening(guest.slot, application === 'listening' && !p.restarting);
    if (application === 'stopping') {
      // Cut off first: from here on no FIN of a service that is stopped gets out.
      p.guestFailed(guest, 'guest-shutdown', `${guest.name} is being shut down from inside`, at);
      guest.channel.acknowledgeStop();
    } else if (application === 'exited') {
      // The exit watch is faster; but there are guests without it, and supervisors that were not there.
      const detail = `the service in ${guest.name} ended (pid ${pid}, ${describeStatus(exitStatus)})`;
      if (guest === p.leaving) p.leavingFailed(guest, detail);
      else this.inPlace.serviceDied(guest, undefined, detail, at);
    }
  }

  #judgeStill(watch: Watch, at: number, lateMs: number, unansweredMs: number): string | undefined {
    watch.lateMs += lateMs;
    const threads = readThreads(watch.guest.pid);
    watch.threads ??= { at, lateMs: watch.lateMs, are: threads };
    const used = usedSince(watch.threads.are, threads);
    if (used.blocked) watch.blockedMs += this.p.config.detect.heartbeatMs + lateMs;
    return judgeStillness(
      {
        ...used,
        blockedMs: watch.blockedMs,
        unansweredMs,
        stillMs: at - watch.since - watch.lateMs,
        watchedMs: at - watch.threads.at - (watch.lateMs - watch.threads.lateMs),
      },
      this.#limits,
    );
  }

  /**
   * Not hung is also a guest that the operator, or a panic just now, has paused; nor one whose emulator was held up, by the disk of a
   * busy host perhaps, and held up its timers, too: when it has come round, the guest has a moment to beat.
   */
  async #suspect(cause: Fault['cause'], watch: Watch, why: string): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const { p } = this;
      const runs = await watch.guest.runs();
      if (runs && cause === 'guest-hang') {
        await watch.guest.emulatorCameRound(EMULATOR_MS);
        await sleep(BEAT_MS);
      }
      if (!runs || p[this.role] !== watch.guest || this.#watch !== watch) return;
      if (cause === 'guest-hang' && beatOf(watch.guest.report()) !== watch.beat) return;
      p.guestFailed(watch.guest, cause, `${watch.guest.name}: ${why}`, now());
    } finally {
      this.#asking = false;
    }
  }
}

const watchOf = (p: Protection, guest: GuestVm, beat: bigint, at: number): Watch => ({
  guest,
  link: new Link(p, guest, at),
  acknowledgements: new Acknowledgements(p, guest),
  ...standing(beat, at),
});

const standing = (beat: bigint, at: number): Omit<Watch, 'guest' | 'link' | 'acknowledgements'> => ({
  beat,
  since: at,
  lateMs: 0,
  threads: undefined,
  blockedMs: 0,
});
