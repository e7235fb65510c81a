import { setTimeout as sleep } from 'node:timers/promises';
import type { RecoveryReport } from '../api/types.js';
import { now } from '../clock.js';
import type { GuestVm } from '../service/guest.js';
import type { Fault, Protection } from '../service/protection.js';
import { replayInPlace, SecondFault } from './recovery.js';

/** Connections of one process are told of within a few ms: they are replayed together once so long no more have come, ms. */
const GATHER_MS = 10;
const POLL_MS = 5;
/** What a service that has lost some processes may take to listen, ms. */
const LISTEN_MS = 10_000;

/**
 * Recovery in the same guest: its machine is well, its service listens, but a process died with the connections it had. They are
 * held; all others are served as if nothing had happened. Beside the upkeep, which may be busy for long with a backup that boots.
 */
export class InPlace {
  #requestedAt = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(
    private readonly p: Protection,
    private readonly done: (report: RecoveryReport) => void,
  ) {}

  /** Flows of `guest` were held: replays them, and those that are held meanwhile. */
  request(guest: GuestVm, detail: string, detectedAt: number): void {
    const { p } = this;
    this.#requestedAt = now();
    if (p.crashed) return;
    p.crashed = { cause: 'application-exit', detail, detectedAt, fencedAt: now(), faultAt: p.drillAt };
    p.drillAt = undefined;
    p.history.failed('application-exit', detail, detectedAt);
    this.#running = this.#run(guest, p.crashed);
  }

  /** Resolves when none is under way. */
  get idle(): Promise<void> {
    return this.#running;
  }

  async #run(guest: GuestVm, crashed: Fault): Promise<void> {
    const { p } = this;
    const isServed = () => p.primary === guest && !p.fault && !p.stopped.aborted;
    const before = p.phase;
    p.become('recovering', crashed.detail);
    try {
      while (now() - this.#requestedAt < GATHER_MS) await sleep(POLL_MS);
      for (
        const deadline = now() + LISTEN_MS;
        guest.report().application !== 'listening';
        await sleep(POLL_MS)
      ) {
        if (!isServed()) return;
        if (now() < deadline) continue;
        p.primaryFailed('application-exit', `${crashed.detail}, and its service does not listen`, now());
        return;
      }
      await p.withReplayer(async replayer => {
        if (!isServed()) return;
        this.done(await replayInPlace(p, crashed, replayer, guest));
      });
    } catch (error) {
      // Whatever it was, the flows stay held: the next guest's recovery, or the janitor's next round, sees to them.
      if (!(error instanceof SecondFault) && !p.stopped.aborted)
        p.say('service.trouble', error instanceof Error ? error.message : String(error));
    } finally {
      p.crashed = undefined;
      if (isServed() && before !== 'protected') p.become(before, 'recovered in place');
      p.wake();
    }
  }
}
