/**
 * Every error an operator can meet carries a stable code (`HF_...`), says which field or object was wrong,
 * and what to do next.
 */
export class HoldfastError extends Error {
  override readonly name: string = 'HoldfastError';

  constructor(
    /** Stable, documented identifier, e.g. `HF_CONFIG_INVALID`. */
    readonly code: `HF_${string}`,
    message: string,
    /** What the operator does next, one sentence. */
    readonly remedy: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }

  override toString(): string {
    return `${this.code}: ${this.message}\n  remedy: ${this.remedy}`;
  }
}
