/** Between two requests of one guest that are read, ms; and after so many of them within a minute. */
const STEADY_MS = 250;
const BURST = 20;
const SLOW_MS = 5000;
const MINUTE_MS = 60_000;
/** After a refusal, doubled with each further one. */
const REFUSED_MS = [1000, 60_000] as const;

/** How often one guest is listened to: what is told of it in the event log is little, however long it goes on. */
export class Pace {
  #next = 0;
  #minute = Number.NEGATIVE_INFINITY;
  #served = 0;
  #refusedMs: number = REFUSED_MS[0];

  /** Whether its next request may be read at `at`, ms. */
  allows(at: number): boolean {
    return at >= this.#next;
  }

  served(at: number): void {
    this.#refusedMs = REFUSED_MS[0];
    if (at - this.#minute > MINUTE_MS) {
      this.#minute = at;
      this.#served = 0;
    }
    this.#served++;
    this.#next = at + (this.#served > BURST ? SLOW_MS : STEADY_MS);
  }

  refused(at: number): void {
    this.#next = at + this.#refusedMs;
    this.#refusedMs = Math.min(2 * this.#refusedMs, REFUSED_MS[1]);
  }
}
