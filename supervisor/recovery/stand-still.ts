/** A moment of a guest's time. */
export interface Moment {
  /** Ours, ms. */
  at: number;
  /** How long its machine had waited for the host's CPU by then, ms. */
  waitedMs: number;
  /** How often the event loop of its agent had come round by then: what it counts, it counts there. */
  rounds: bigint;
}

/** A counter of a guest's that moves as long as something lives there, and for how long it has not. */
export class StandStill {
  constructor(
    private value: bigint,
    private since: Moment,
    /** The agent's event loop takes at least so long for a round, ms. */
    private readonly roundMs: number,
  ) {}

  /**
   * How long `value` has not changed, ms of the guest's time: time that its machine waited for a CPU is no time that passed there, and
   * neither is any in which its agent, who moves the counter, did not run either (the machine is paused, the agent starts again).
   */
  look(value: bigint, moment: Moment): number {
    if (value !== this.value) {
      this.value = value;
      this.since = moment;
    }
    const { since, roundMs } = this;
    const passedMs = moment.at - since.at - (moment.waitedMs - since.waitedMs);
    const rounds = Number(BigInt.asUintN(64, moment.rounds - since.rounds));
    return Math.min(passedMs, rounds * roundMs);
  }
}
