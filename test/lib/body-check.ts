import { createHash, type Hash } from 'node:crypto';

/** A body a client should receive: its size and SHA-256 in hex. */
export interface ExpectedBody {
  bytes: number;
  sha256: string;
}

/**
 * Checks bodies that arrive back to back in one stream (several transfers of one curl to standard output), holding no more than
 * a chunk. A body that is shorter or longer than announced shifts the following ones, which then fail as well: any
 * deviation is found, the first wrong index is exact.
 */
export class BodyCheck {
  /** Bytes seen, bodies finished, and the indices of those that were wrong. */
  bytes = 0;
  finished = 0;
  readonly wrong: number[] = [];
  #hash: Hash = createHash('sha256');
  #left: number;

  constructor(readonly expected: readonly ExpectedBody[]) {
    this.#left = expected[0]?.bytes ?? 0;
  }

  push(chunk: Buffer): void {
    this.bytes += chunk.length;
    let at = 0;
    while (at < chunk.length && this.finished < this.expected.length) {
      const piece = chunk.subarray(at, at + this.#left);
      this.#hash.update(piece);
      this.#left -= piece.length;
      at += piece.length;
      if (this.#left === 0) this.#finish();
    }
  }

  /** All bodies arrived, each right, and not a byte more. */
  get complete(): boolean {
    const total = this.expected.reduce((sum, body) => sum + body.bytes, 0);
    return this.finished === this.expected.length && this.wrong.length === 0 && this.bytes === total;
  }

  #finish(): void {
    if (this.#hash.digest('hex') !== this.expected[this.finished]!.sha256) this.wrong.push(this.finished);
    this.#hash = createHash('sha256');
    this.finished++;
    this.#left = this.expected[this.finished]?.bytes ?? 0;
  }
}
