import { setTimeout as sleep } from 'node:timers/promises';
import type { RecoveryReport } from '../api/types.js';
import { now } from '../clock.js';
import type { GuestVm } from '../service/guest.js';
import type { Fault, Protection } from '../service/protection.js';
import { HeldHere } from './held-here.js';
import { replayInPlace, SecondFault } from './recovery.js';
import { chooseRemedy } from './remedy.js';

/** Connections of one process are told of within a few ms: they are replayed together once so long no more have come, ms. */
const GATHER_MS = 10;
const POLL_MS = 5;
/** What a service that has lost some processes, or was started again, may take to listen, ms. */
const LISTEN_MS = 10_000;

type Ending = 'listens' | 'died' | 'late' | 'gone';

/**
 * Recovery in the same guest: its machine is well, but a process died with the connections it had, or a whole service. They are held;
 * all others are served as if nothing had happened. Beside the upkeep, which may be busy for long with a backup that boots.
 */
export class InPlace {
  #requestedAt = 0;
  #running: Promise<void> = Promise.resolve();
  /** Moments of restarts, in `#guest`. */
  #restarts: number[] = [];
  #guest: GuestVm | undefined;
  /** The service died once more since it was last told to start. */
  #diedAgain = false;

  constructor(
    private readonly p: Protection,
    private readonly done: (report: RecoveryReport) => void,
  ) {}

  /** Flows of `guest` were held: replays them, and those that are held meanwhile. */
  request(guest: GuestVm, detail: string, detectedAt: number): void {
    this.#requestedAt = now();
    if (!this.p.crashed) this.#begin(guest, detail, detectedAt, () => this.#untilListens(guest));
  }

  /** A service of `guest` died, by its main process: does what the policy says. `service`: its place in the image's list, if known. */
  serviceDied(guest: GuestVm, service: number | undefined, detail: string, detectedAt: number): void {
    const { p } = this;
    // Told twice: by the exit watch, and by the agent.
    if (p.restarting === 'waits') return;
    // Before anything else: its kernel refuses whoever connects now.
    p.path.setListening(guest.slot, false);
    if (p.restarting === 'starts') {
      this.#diedAgain = true;
      return;
    }
    if (this.#guest !== guest) this.#restarts = [];
    this.#guest = guest;
    const remedy = chooseRemedy(p.config.recovery, this.#restarts, p.backup !== undefined, detectedAt);
    // In the midst of a replay in place nobody but another guest can help.
    if (remedy.does === 'failover' || p.crashed) {
      p.primaryFailed('application-exit', detail, detectedAt);
      return;
    }
    p.restarting = 'waits';
    this.#requestedAt = now();
    this.#begin(guest, detail, detectedAt, () => this.#restart(guest, service, detail, remedy.delayMs));
  }

  /** Resolves when none is under way. */
  get idle(): Promise<void> {
    return this.#running;
  }

  #begin(guest: GuestVm, detail: string, detectedAt: number, ready: () => Promise<boolean>): void {
    const { p } = this;
    p.crashed = { cause: 'application-exit', detail, detectedAt, fencedAt: now(), faultAt: p.drillAt };
    p.drillAt = undefined;
    p.history.failed('application-exit', detail, detectedAt);
    this.#running = this.#run(guest, p.crashed, ready);
  }

  #isServed(guest: GuestVm): boolean {
    const { p } = this;
    return p.primary === guest && !p.fault && !p.stopped.aborted;
  }

  async #run(guest: GuestVm, crashed: Fault, ready: () => Promise<boolean>): Promise<void> {
    const { p } = this;
    const before = p.phase;
    p.become('recovering', crashed.detail);
    try {
      while (now() - this.#requestedAt < GATHER_MS) await sleep(POLL_MS);
      if (!(await ready())) return;
      await p.withReplayer(async replayer => {
        if (!this.#isServed(guest)) return;
        this.done(await replayInPlace(p, crashed, replayer, guest));
      });
    } catch (error) {
      // Whatever it was, the flows stay held: the next guest's recovery, or the janitor's next round, sees to them.
      if (!(error instanceof SecondFault) && !p.stopped.aborted)
        p.say('service.trouble', error instanceof Error ? error.message : String(error));
    } finally {
      p.crashed = undefined;
      p.restarting = undefined;
      if (this.#isServed(guest) && before !== 'protected') p.become(before, 'recovered in place');
      p.wake();
    }
  }

  async #untilListens(guest: GuestVm): Promise<boolean> {
    const ending = await this.#listening(guest, false);
    if (ending === 'late')
      this.p.primaryFailed(
        'application-exit',
        `the service in ${guest.name} lost a process and does not listen`,
        now(),
      );
    return ending === 'listens';
  }

  /** Starts the service again until it listens; another guest's turn comes first, if there is one. */
  async #restart(
    guest: GuestVm,
    service: number | undefined,
    detail: string,
    firstDelayMs: number,
  ): Promise<boolean> {
    const { p } = this;
    const held = new HeldHere(p, guest, service);
    for (let delayMs = firstDelayMs; ; ) {
      if (delayMs > 0) {
        const data = { guest: guest.name, restarts: this.#restarts.length, delayMs };
        p.say('application.crash-loop', `${detail}; it starts again in ${delayMs / 1000} s`, data);
      }
      await sleep(delayMs, undefined, { signal: p.stopped }).catch(() => {});
      if (!this.#isServed(guest)) return false;
      // The exit watch is faster than the agent, which starts only what it knows to have ended.
      if (!(await this.#hasExited(guest))) return false;
      this.#restarts.push(now());
      this.#diedAgain = false;
      guest.channel.sendCommand('restart');
      const ending = await this.#listening(guest, true);
      if (ending === 'gone') return false;
      if (ending === 'listens') {
        held.rest();
        p.restarting = undefined;
        p.path.setListening(guest.slot, true);
        return true;
      }
      const remedy = chooseRemedy(p.config.recovery, this.#restarts, p.backup !== undefined, now());
      if (remedy.does === 'failover') {
        const why = ending === 'died' ? 'died again' : `does not listen after ${LISTEN_MS / 1000} s`;
        p.primaryFailed('application-exit', `${detail}, was started again, and ${why}`, now());
        return false;
      }
      delayMs = remedy.delayMs;
      p.restarting = 'waits';
    }
  }

  async #hasExited(guest: GuestVm): Promise<boolean> {
    for (const deadline = now() + LISTEN_MS; this.#isServed(guest); await sleep(POLL_MS)) {
      if (guest.report().application === 'exited') return true;
      if (now() < deadline) continue;
      this.p.primaryFailed(
        'application-exit',
        `the agent in ${guest.name} does not see that its service ended`,
        now(),
      );
    }
    return false;
  }

  /** `anew`: it was told to start, and what its agent said before is past. */
  async #listening(guest: GuestVm, anew: boolean): Promise<Ending> {
    for (const deadline = now() + LISTEN_MS; now() < deadline; await sleep(POLL_MS)) {
      if (!this.#isServed(guest)) return 'gone';
      const { application } = guest.report();
      if (anew && application !== 'exited') {
        anew = false;
        this.p.restarting = 'starts';
      }
      if (anew) continue;
      if (this.#diedAgain && this.p.restarting) return 'died';
      if (application === 'listening') return 'listens';
    }
    return 'late';
  }
}
