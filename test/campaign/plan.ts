import { createHash } from 'node:crypto';
import type { FaultKind } from './faults.js';

/** Longest random wait between the moment at which all is well and busy, and the next fault, ms. */
const MAX_DELAY_MS = 3000;

export interface PlannedFault {
  kind: FaultKind;
  delayMs: number;
}

/** 32 bits that depend on nothing but the seed and the words: a resumed campaign goes on as it would have gone. */
export function random(seed: number, ...words: (string | number)[]): number {
  return createHash('sha256')
    .update([seed, ...words].join(' '))
    .digest()
    .readUInt32BE(0);
}

/**
 * Fault number `n` of a campaign. Each block of as many faults as there are kinds has each kind once, in an order of its own: in
 * `10 * kinds.length` faults each kind comes ten times.
 */
export function faultAt(seed: number, n: number, kinds: readonly FaultKind[]): PlannedFault {
  const block = Math.floor(n / kinds.length);
  const order = kinds
    .map(kind => ({ kind, key: random(seed, 'order', block, kind) }))
    .sort((a, b) => a.key - b.key);
  return { kind: order[n % kinds.length]!.kind, delayMs: random(seed, 'delay', n) % MAX_DELAY_MS };
}
