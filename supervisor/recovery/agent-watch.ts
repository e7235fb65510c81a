import type { GuestReport } from '../../hypervisor-shim/guest-channel/guest-channel.js';
import type { Protection } from '../service/protection.js';

/** A part of the agent that gives no beat for so long is not coming back by itself, ms: a start takes a second under emulation. */
const LOST_MS = 15_000;
/** What a guest says of its agent is quoted once in so long, ms: the event log is everybody's. */
const QUOTE_EVERY_MS = 10_000;

type Part = 'agent' | 'heart';

interface Seen {
  beat: bigint;
  since: number;
  starts: number;
  lost: boolean;
}

/** Moves as long as either part of the agent lives: the death of one is not that of the guest. */
export const beatOf = (report: GuestReport): bigint => report.heartbeat + report.userHeartbeat;

const NAMES = { agent: 'agent', heart: "agent's heart" } as const;
const WITHOUT = {
  agent: 'the service goes on, but what becomes of it is not told any more',
  heart: 'a hang is noticed by the agent alone, and drills find nobody',
} as const;

/**
 * Tells of the death of either part of a guest's agent, which is no outage: the agent proper (an event loop) and its heart (a
 * real-time process), each of which outlives the other and starts it again, or is started by the guest's process 1.
 */
export class AgentWatch {
  #guest = '';
  #seen: Partial<Record<Part, Seen>> = {};
  #quotedAt: Record<Part, number> = { agent: Number.NEGATIVE_INFINITY, heart: Number.NEGATIVE_INFINITY };

  constructor(private readonly p: Pick<Protection, 'say'>) {}

  look(guest: string, report: GuestReport, at: number): void {
    if (guest !== this.#guest) this.#seen = {};
    this.#guest = guest;
    const beats = this.#moved('heart', report.heartbeat, report.heartStarts, at);
    const works = this.#moved('agent', report.userHeartbeat, report.agentStarts, at);
    // While neither beats it is the guest that is judged, not its agent.
    if (works && !beats) this.#lost('heart');
    if (beats && !works) this.#lost('agent');
  }

  /** Whether that part beats, as far as is known. */
  #moved(part: Part, beat: bigint, starts: number, at: number): boolean {
    const seen = this.#seen[part];
    if (seen && starts !== seen.starts && at - this.#quotedAt[part] > QUOTE_EVERY_MS) {
      this.#quotedAt[part] = at;
      this.#say(part, 'ended and was started again', starts);
    }
    if (!seen || beat !== seen.beat || starts !== seen.starts) {
      this.#seen[part] = { beat, since: at, starts, lost: false };
      return true;
    }
    return at - seen.since < LOST_MS;
  }

  #lost(part: Part): void {
    const seen = this.#seen[part]!;
    if (seen.lost) return;
    seen.lost = true;
    this.#say(part, `gives no beat for ${LOST_MS / 1000} s: ${WITHOUT[part]}`, seen.starts);
  }

  #say(part: Part, what: string, starts: number): void {
    const guest = this.#guest;
    this.p.say('guest.agent', `the ${NAMES[part]} in ${guest} ${what}`, { guest, part, starts });
  }
}
