/** A seeded source of randomness (mulberry32): the same seed makes the same script on every machine. */
export class Random {
  constructor(private state: number) {}

  /** A whole number in [0, n). */
  int(n: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let x = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * n);
  }

  between(low: number, high: number): number {
    return low + this.int(Math.max(1, high - low + 1));
  }

  chance(probability: number): boolean {
    return this.int(10_000) < probability * 10_000;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)]!;
  }

  /** One of the choices, as often as its weight says. */
  weighted<T>(choices: readonly (readonly [weight: number, choice: T])[]): T {
    let n = this.int(choices.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, choice] of choices) {
      n -= weight;
      if (n < 0) return choice;
    }
    throw new Error('no choice');
  }
}
