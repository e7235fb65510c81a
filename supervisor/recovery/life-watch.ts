import { USER_BEAT_MS } from '../../guest-agent/wire/control-page.js';
import type { ServiceWord } from '../../hypervisor-shim/guest-channel/service-words.js';
import { now } from '../clock.js';
import type { Fault } from '../service/protection.js';
import { type Moment, StandStill } from './stand-still.js';
import { readThreads, type Threads, usedSince } from './threads.js';

const LOOK_MS = 250;
/** A guest may change its mind as often as it likes: the event log is everybody's. */
const TOLD_EVERY_MS = 5000;

interface WatchedGuest {
  name: string;
  state: string;
  pid: number | undefined;
  report(): { userHeartbeat: bigint };
  channel: { services(count: number): ServiceWord[] };
}

/** What is looked after. */
export interface LifeCharge {
  readonly primary: WatchedGuest | undefined;
  readonly fault: Fault | undefined;
  /** A recovery in the same guest is under way. */
  readonly crashed: Fault | undefined;
  readonly replaying: boolean;
  readonly config: { detect: { acceptQueueMs?: number | undefined } };
  primaryFailed(cause: Fault['cause'], detail: string, detectedAt: number): void;
  say(type: string, message: string, data?: Record<string, unknown>): void;
}

/** What is known of one service, from its first sign of life, or its first connection that waits, on. */
interface Life {
  signs: StandStill | undefined;
  accepts: StandStill | undefined;
}

/**
 * Finds services that are there and do nothing, in guests that are well: those that give signs of life (see the agent's notices.ts) and
 * give no more, and those whose connections wait and none of which is accepted. A service that never gave a sign of life need not.
 */
export class LifeWatch {
  #timer: NodeJS.Timeout | undefined;
  #guest: WatchedGuest | undefined;
  /** Of the machine, when the watch began. */
  #threads: Threads | undefined;
  #lives: Life[] = [];
  /** Services of this guest whose first sign of life was told of. */
  #told = new Set<number>();
  /** What was last said of services that were stopped on purpose, and when. */
  #stops = new Map<number, { isStopped: boolean; at: number }>();

  constructor(
    private readonly p: LifeCharge,
    private readonly services: readonly { name: string }[],
  ) {}

  start(): void {
    this.#timer = setInterval(() => this.look(now()), LOOK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  look(at: number): void {
    const { primary: guest, fault, crashed, replaying, config } = this.p;
    if (guest !== this.#guest) this.#begin(guest);
    if (guest !== this.#guest || replaying || crashed) this.#lives = [];
    this.#guest = guest;
    if (guest?.state !== 'active' || fault || crashed || replaying) return;
    const words = guest.channel.services(this.services.length);
    const acceptQueueMs = config.detect.acceptQueueMs ?? Number.POSITIVE_INFINITY;
    for (const word of words) this.#followStop(guest, word, at);
    const isWatched = (word: ServiceWord) =>
      !word.isStopped &&
      ((word.watchdogMs !== undefined && word.signs !== 0n) || (word.queued > 0 && acceptQueueMs < Infinity));
    if (!words.some(isWatched)) {
      this.#lives = [];
      return;
    }
    const moment = this.#momentOf(guest, at);
    for (const word of words) {
      if (word.isStopped) {
        delete this.#lives[word.service];
        continue;
      }
      this.#lives[word.service] ??= { signs: undefined, accepts: undefined };
      const life = this.#lives[word.service]!;
      const why = this.#judgeSigns(life, word, moment) ?? judgeQueue(life, word, moment, acceptQueueMs);
      if (why === undefined) continue;
      const { name } = this.services[word.service]!;
      this.p.primaryFailed('service-wedged', `${name} in ${guest.name} ${why}`, at);
      return;
    }
  }

  /** A stop is the word of one machine: in the one that takes over all services run. */
  #begin(guest: WatchedGuest | undefined): void {
    for (const [service, { isStopped }] of this.#stops) {
      const message = `${this.services[service]!.name} runs in ${guest?.name}: it was stopped in ${this.#guest?.name} only`;
      if (isStopped && guest) this.p.say('application.started', message, { guest: guest.name });
    }
    this.#told.clear();
    this.#stops.clear();
  }

  /** What the operator of a guest does is told of, once it lasts. */
  #followStop({ name }: WatchedGuest, { service, isStopped }: ServiceWord, at: number): void {
    const last = this.#stops.get(service);
    if ((last?.isStopped ?? false) === isStopped || (last && at - last.at < TOLD_EVERY_MS)) return;
    this.#stops.set(service, { isStopped, at });
    const what = isStopped ? 'stopped on purpose, from inside' : 'started again';
    const type = isStopped ? 'application.stopped' : 'application.started';
    this.p.say(type, `${this.services[service]!.name} in ${name} is ${what}`, { guest: name });
  }

  #momentOf(guest: WatchedGuest, at: number): Moment {
    const threads = readThreads(guest.pid);
    if (this.#lives.length === 0) this.#threads = threads;
    const { mainWaitedMs, vcpuWaitedMs, stolenMs } = usedSince(this.#threads!, threads);
    // The two may have waited at once, or one for the other: too much is excused rather than too little.
    const waitedMs = mainWaitedMs + vcpuWaitedMs + stolenMs;
    return { at, waitedMs, rounds: guest.report().userHeartbeat };
  }

  #judgeSigns(life: Life, { service, signs, watchdogMs }: ServiceWord, moment: Moment): string | undefined {
    if (watchdogMs === undefined || signs === 0n) {
      life.signs = undefined;
      return undefined;
    }
    if (!this.#told.has(service)) {
      this.#told.add(service);
      const { name } = this.services[service]!;
      const message = `${name} in ${this.#guest!.name} gives signs of life, and is to give one in each ${watchdogMs} ms`;
      this.p.say('watchdog.begun', message, { guest: this.#guest!.name, watchdogMs });
    }
    life.signs ??= new StandStill(signs, moment, USER_BEAT_MS);
    const stillMs = life.signs.look(signs, moment);
    if (stillMs < watchdogMs) return undefined;
    return `has given no sign of life for ${stillMs.toFixed(0)} ms, and declared ${watchdogMs}`;
  }
}

function judgeQueue(
  life: Life,
  { queued, accepts }: ServiceWord,
  moment: Moment,
  acceptQueueMs: number,
): string | undefined {
  if (queued === 0) {
    life.accepts = undefined;
    return undefined;
  }
  life.accepts ??= new StandStill(accepts, moment, USER_BEAT_MS);
  const stillMs = life.accepts.look(accepts, moment);
  if (stillMs < acceptQueueMs) return undefined;
  return `has accepted none of ${queued} connections for ${stillMs.toFixed(0)} ms`;
}
