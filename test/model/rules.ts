/** What the rules share: conversions, windows, the log's claims. */
import { sampleStart } from '../../hypervisor-shim/replay/masks.js';
import { distance, type Position, plus, type Seq, seq, shiftBack } from './seq.js';
import type { Counter, Flow, Options, Outcome, Segment, Ssw } from './state.js';

export const UNSCALED = 0;
const ISLANDS = 8;
const HEAD_BYTES = 1024;
const SAMPLE_BYTES = 32;
const SAMPLE_BLOCK = 16_384;

export const has = (s: Segment, flag: string): boolean => s.flags.includes(flag);

export function drop(m: Ssw, counter: Counter): Outcome {
  m.counted.push(counter);
  return { dropped: counter };
}

// L1: positions have 64 bits and are derived near a known one; sequence numbers follow from them.
export const inSeq = (f: Flow, p: Position): Seq => plus(f.c_isn, 1 + p);
export const outSeq = (f: Flow, p: Position): Seq => plus(f.s_isn, 1 + p);
export const inPosition = (f: Flow, s: Seq): Position => f.in_end + distance(s, inSeq(f, f.in_end));
export const outPosition = (f: Flow, visible: Seq): Position =>
  f.out_sent + distance(visible, outSeq(f, f.out_sent));
/** An output position in the present guest's sequence space. */
export const guestSeq = (f: Flow, p: Position): Seq => shiftBack(outSeq(f, p), f.d);

/** F1: a flow is its owner's only in the owner's current epoch; otherwise it is held. */
export const isCurrent = (m: Ssw, f: Flow): boolean => m.slots[f.owner]!.epoch === f.epoch;

const shift = (o: Options): number => Math.min(o.wscale ?? UNSCALED, 14);
/** RFC 7323: windows are scaled if both ends said so, and never in a SYN. */
const agreed = (a: Options, b: Options): boolean => a.wscale !== undefined && b.wscale !== undefined;
/** The scale in which the client announces its window, and the one in which the present guest reads it. */
export const clientShift = (f: Flow): number => (agreed(f.client, f.server) ? shift(f.client) : UNSCALED);
export const clientShiftAtGuest = (f: Flow): number =>
  agreed(f.client, f.guest) && agreed(f.client, f.server) ? shift(f.client) : UNSCALED;
/** The scale in which the present guest announces its window, and the one in which the client reads it. */
export const guestShift = (f: Flow): number => (agreed(f.client, f.guest) ? shift(f.guest) : UNSCALED);
export const serverShift = (f: Flow): number => (agreed(f.client, f.server) ? shift(f.server) : UNSCALED);
/** A window of so many bytes in a header; never more than there is. */
export const windowField = (bytes: number, scale: number): number =>
  Math.min(65_535, Math.floor(bytes / 2 ** scale));

/** All input, the FIN included: what the guest's ACK reaches when it has consumed everything. */
export const inTotal = (f: Flow): Position => (f.fin_in === f.in_end ? f.in_end + 1 : f.in_end);

/** Both ends have finished, and know it of each other. */
export function closeIfDone(f: Flow): void {
  if (f.fin_in === undefined || f.fin_out === undefined) return;
  if (f.g_ack === f.fin_in + 1 && f.out_acked === f.fin_out + 1) f.state = 'CLOSED';
}

/** Both ends have said that they are done, and the client has heard it of the server. */
export const endedProperly = (f: Flow): boolean =>
  f.fin_in !== undefined && f.fin_out !== undefined && f.out_acked === f.fin_out + 1;

/** Of the segment that an input position lies in: 2 KiB, then 16 KiB each. */
export const inputIndex = (at: Position): number => (at < 2048 ? 0 : 1 + Math.floor((at - 2048) / 16_384));

/** L2, L3: new bytes enter the log whole or not at all; the first writer wins. What was spilled is not looked at again. */
export function logInput(f: Flow, start: Position, data: Buffer): Counter | undefined {
  const spilled = (at: Position) => at < f.in_end && inputIndex(at) < f.in_first;
  for (const [i, byte] of data.entries()) {
    if (!spilled(start + i) && (f.input.get(start + i) ?? byte) !== byte) return 'DROP_CONFLICT';
  }
  const islands = f.input.runs(f.in_end).filter(([a, b]) => b < start || a > start + data.length);
  if (start > f.in_end && islands.length >= ISLANDS) return 'DROP_BUSY';
  for (const [i, byte] of data.entries()) if (!spilled(start + i)) f.input.put(start + i, byte);
  while (f.input.has(f.in_end)) f.in_end++;
  return undefined;
}

/** P2: which positions of output the comparator covers, when they are sent for the first time. */
export function isCovered(m: Ssw, f: Flow, at: Position): boolean {
  if (m.compare === 'full' || at < f.head_start + HEAD_BYTES) return true;
  const salt = m.seed ^ ((BigInt(f.c_isn) << 32n) | BigInt(f.s_isn));
  const sample = sampleStart(salt, Math.floor(at / SAMPLE_BLOCK));
  return at >= sample && at < sample + SAMPLE_BYTES;
}

export const ZERO = seq(0);
