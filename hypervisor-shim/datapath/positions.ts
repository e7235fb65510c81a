/**
 * Sequence numbers on the wire (32 bit, wrapping) and positions (64 bit, never wrapping). Only here is one made from the
 * other; the glossary of their names stands in bpf/layout.h.
 */
import type { Flow } from './layout.generated.js';
import { CONST } from './layout.generated.js';

declare const seqBrand: unique symbol;
/** A TCP sequence number or TCP timestamp, mod 2^32. */
export type Seq = number & { readonly [seqBrand]: true };

/** The value that a position has until it is known (`HF_UNSET`). */
export const UNSET = 0xffff_ffff_ffff_ffffn;

export const toSeq = (value: number | bigint): Seq =>
  (typeof value === 'bigint' ? Number(value & 0xffff_ffffn) : value >>> 0) as Seq;

export const addSeq = (a: number, b: number): Seq => ((a + b) >>> 0) as Seq;

/** Distance from `b` to `a`, negative if `a` is before `b` (within half the sequence space). */
export const seqDistance = (a: number, b: number): number => (a - b) | 0;

/** Sequence number of an input position. */
export const inSeq = (f: Flow, position: bigint): Seq => toSeq(BigInt(f.c_isn) + 1n + position);

/** Sequence number of an output position, as the client sees it. */
export const outSeq = (f: Flow, position: bigint): Seq => toSeq(BigInt(f.s_isn) + 1n + position);

/** All input, the FIN included: what the guest acknowledges when it has consumed everything. */
export const inTotal = (f: Flow): bigint => (f.fin_in === f.in_end ? f.in_end + 1n : f.in_end);

export const windowShift = (wscale: number): number =>
  wscale === CONST.NO_WSCALE ? 0 : Math.min(wscale, 14);

/** The lower of two positions (Math.min takes no bigint). */
export function minPosition(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
