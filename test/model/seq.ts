/**
 * Sequence numbers and positions of the model. A `Seq` is only ever moved by a distance and compared within half the
 * sequence space; a position is a plain number that never wraps (safe up to 2^53).
 */
import { addSeq, type Seq, seqDistance, toSeq } from '../../hypervisor-shim/datapath/positions.js';

export type { Seq };
export type Position = number;

export const seq = (n: number): Seq => toSeq(n);
/** The sequence number `n` behind `s`; `n` may be negative. */
export const plus = (s: Seq, n: number): Seq => addSeq(s, n);
/** From `b` to `a`, negative if `a` is before `b`. */
export const distance = (a: Seq, b: Seq): number => seqDistance(a, b);
/** `a` moved by the delta `d`, itself mod 2^32; and back. */
export const shiftBy = (a: Seq, d: Seq): Seq => addSeq(a, d);
export const shiftBack = (a: Seq, d: Seq): Seq => addSeq(a, -d);
/** The delta that moves `b` to `a`. */
export const delta = (a: Seq, b: Seq): Seq => addSeq(a, -b);
export const isAfter = (a: Seq, b: Seq): boolean => distance(a, b) > 0;
export const later = (a: Seq, b: Seq): Seq => (isAfter(a, b) ? a : b);
export const earlier = (a: Seq, b: Seq): Seq => (isAfter(a, b) ? b : a);
