/**
 * Fields that a protocol lets vary at equal length are not compared: their presence bits are cleared in the captured
 * output, in the heads and in the samples, before a replay starts.
 */
import type { DataPath } from '../datapath/datapath.js';
import { CONST, type Flow, KIND } from '../datapath/layout.generated.js';
import type { CapturedSegment } from '../datapath/log-store.js';

/** A mask finds the spans [start, end) of a text that may differ. */
export type Mask = (text: string) => { start: number; end: number }[];

const MESSAGE = /HTTP\/1\.[01] \d{3}[^\r\n]*\r\n(?:[^\r\n]+\r\n)*/g;
const DATED = /\r\n(?:date|expires): ([^\r\n]*)/gi;

/** HTTP's Date and Expires fields in the heads of responses (RFC 9110, 6.6.1: the origin's clock). */
const httpDate: Mask = text => {
  const spans = [];
  for (const message of text.matchAll(MESSAGE)) {
    for (const field of message[0].matchAll(DATED)) {
      const end = message.index + field.index + field[0].length;
      spans.push({ start: end - field[1]!.length, end });
    }
  }
  return spans;
};

export const MASKS: Record<string, Mask> = { 'http-date': httpDate };

interface Run {
  position: number;
  bytes: number[];
}

/** Contiguous runs of captured output. */
function runs(segments: CapturedSegment[]): Run[] {
  const found: Run[] = [];
  for (const s of segments) {
    if (s.kind !== KIND.OUTPUT) continue;
    for (let i = 0; i < CONST.SMALL_BYTES; i++) {
      if (!(s.present[i >>> 3]! & (1 << (i & 7)))) continue;
      const position = s.index * CONST.SMALL_BYTES + i;
      const last = found.at(-1);
      if (last && last.position + last.bytes.length === position) last.bytes.push(s.bytes[i]!);
      else found.push({ position, bytes: [s.bytes[i]!] });
    }
  }
  return found;
}

const MASK64 = 0xffff_ffff_ffff_ffffn;

/** Where the sample of a block starts: the twin of `sample_start` in bpf/output.h. */
export function sampleStart(salt: bigint, block: number): number {
  let h = ((BigInt(block) ^ salt) * 0x9e3779b97f4a7c15n) & MASK64;
  h ^= h >> 29n;
  h = (h * 0xbf58476d1ce4e5b9n) & MASK64;
  return block * CONST.SAMPLE_BLOCK + Number((h >> 33n) % BigInt(CONST.SAMPLE_BLOCK - CONST.SAMPLE_BYTES));
}

function clear(present: Uint8Array, bit: number): void {
  present[bit >>> 3]! &= ~(1 << (bit & 7));
}

/** Clears the bits of one output position in the head and in the sample that cover it. */
function forget(segments: CapturedSegment[], salt: bigint, position: number): void {
  const head = segments.find(
    s => s.kind === KIND.OUTPUT && s.index === Math.floor(position / CONST.SMALL_BYTES),
  );
  if (head) clear(head.present, position % CONST.SMALL_BYTES);
  const block = Math.floor(position / CONST.SAMPLE_BLOCK);
  const within = position - sampleStart(salt, block);
  if (within < 0 || within >= CONST.SAMPLE_BYTES) return;
  const perSegment = CONST.SMALL_BYTES / CONST.SAMPLE_BYTES;
  const sample = segments.find(s => s.kind === KIND.SAMPLES && s.index === Math.floor(block / perSegment));
  if (sample) clear(sample.present, (block % perSegment) * CONST.SAMPLE_BYTES + within);
}

/** Applies the named masks to what was captured of a flow's output. */
export function applyMasks(path: DataPath, flow: Flow, names: string[]): void {
  const segments = path.log.captured(flow);
  const salt = path.control.seed ^ ((BigInt(flow.c_isn) << 32n) | BigInt(flow.s_isn));
  for (const run of runs(segments)) {
    const text = Buffer.from(run.bytes).toString('latin1');
    for (const name of names) {
      for (const span of MASKS[name]?.(text) ?? []) {
        for (let i = span.start; i < span.end; i++) forget(segments, salt, run.position + i);
      }
    }
  }
}
