/**
 * Fields that a protocol lets vary at equal length are not compared: their presence bits are cleared in the captured
 * output, in the heads and in the samples, before a replay starts.
 */
import type { DataPath } from '../datapath/datapath.js';
import { CONST, type Flow, KIND } from '../datapath/layout.generated.js';
import type { CapturedSegment } from '../datapath/log-store.js';

/** A mask finds the spans [start, end) of a text that may differ. */
export type Mask = (text: string) => { start: number; end: number }[];

const STATUS_LINE = /HTTP\/1\.[01] \d{3}/;
const DATED = /^(?:date|expires): /i;
/** A longer value is no date, and is compared: what a mask takes away from the comparator is bounded. */
const LONGEST_DATE = 64;

/**
 * HTTP's Date and Expires fields in the heads of responses (RFC 9110, 6.6.1: the origin's clock). A head is a status line and the
 * fields behind it, each ended by CRLF. Line by line, so its time is linear in the text, whatever a guest made of it.
 */
const httpDate: Mask = text => {
  const spans = [];
  let inHead = false;
  let start = 0;
  for (const { 0: terminator, index: end } of text.matchAll(/\r\n|[\r\n]/g)) {
    const line = text.slice(start, end);
    if (terminator !== '\r\n' || line === '') inHead = false;
    else if (!inHead) inHead = STATUS_LINE.test(line);
    else {
      const name = DATED.exec(line)?.[0].length;
      if (name !== undefined && line.length - name <= LONGEST_DATE) spans.push({ start: start + name, end });
    }
    start = end + terminator.length;
  }
  return spans;
};

export const MASKS: Record<string, Mask> = { 'http-date': httpDate };

/** Contiguous captured output. */
interface Run {
  position: number;
  text: string;
}

/** Where segments' bytes are present, as [start, end) in output positions. */
function* spans(segments: CapturedSegment[]): Generator<{ start: number; end: number; bytes: Uint8Array }> {
  for (const { kind, index, bytes, present } of segments) {
    if (kind !== KIND.OUTPUT) continue;
    const base = index * CONST.SMALL_BYTES;
    let start = -1;
    for (let i = 0; i < CONST.SMALL_BYTES; ) {
      const octet = present[i >>> 3]!;
      const whole = (i & 7) === 0 && (octet === 0 || octet === 0xff);
      const isPresent = (octet & (1 << (i & 7))) !== 0;
      if (isPresent && start < 0) start = i;
      if (!isPresent && start >= 0) {
        yield { start: base + start, end: base + i, bytes: bytes.subarray(start, i) };
        start = -1;
      }
      i += whole ? 8 : 1;
    }
    if (start >= 0)
      yield { start: base + start, end: base + CONST.SMALL_BYTES, bytes: bytes.subarray(start) };
  }
}

function runs(segments: CapturedSegment[]): Run[] {
  const found: (Run & { end: number })[] = [];
  for (const { start, end, bytes } of spans(segments)) {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    const last = found.at(-1);
    if (last?.end === start) {
      last.text += text;
      last.end = end;
    } else found.push({ position: start, text, end });
  }
  return found;
}

const MASK64 = 0xffff_ffff_ffff_ffffn;

/** Where the sample of a block starts: the twin of `sample_start` in bpf/output.h. */
export function sampleStart(salt: bigint, block: number): number {
  let h = ((BigInt(block) ^ salt) * 0x9e3779b97f4a7c15n) & MASK64;
  h ^= h >> 29n;
  h = (h * 0xbf58476d1ce4e5b9n) & MASK64;
  const span = BigInt(CONST.SAMPLE_BLOCK - CONST.SAMPLE_BYTES);
  return block * CONST.SAMPLE_BLOCK + Number(((h >> 40n) * span) >> 24n);
}

function clear(present: Uint8Array, bit: number): void {
  present[bit >>> 3]! &= ~(1 << (bit & 7));
}

const placeOf = (kind: number, index: number): number => kind * 2 ** 28 + index;

/** Clears the bits of one output position in the head and in the sample that cover it. */
function forget(segments: Map<number, CapturedSegment>, salt: bigint, position: number): void {
  const head = segments.get(placeOf(KIND.OUTPUT, Math.floor(position / CONST.SMALL_BYTES)));
  if (head) clear(head.present, position % CONST.SMALL_BYTES);
  const block = Math.floor(position / CONST.SAMPLE_BLOCK);
  const perSegment = CONST.SMALL_BYTES / CONST.SAMPLE_BYTES;
  const sample = segments.get(placeOf(KIND.SAMPLES, Math.floor(block / perSegment)));
  if (!sample) return;
  const within = position - sampleStart(salt, block);
  if (within < 0 || within >= CONST.SAMPLE_BYTES) return;
  clear(sample.present, (block % perSegment) * CONST.SAMPLE_BYTES + within);
}

/** Applies the named masks to what was captured of a flow's output. */
export function applyMasks(path: DataPath, flow: Flow, names: string[]): void {
  const salt = path.control.seed ^ ((BigInt(flow.c_isn) << 32n) | BigInt(flow.s_isn));
  maskSegments(path.log.captured(flow), salt, names);
}

/** The same on captured segments in order of their index. */
export function maskSegments(segments: CapturedSegment[], salt: bigint, names: string[]): void {
  const byPlace = new Map(segments.map(s => [placeOf(s.kind, s.index), s]));
  for (const { position, text } of runs(segments)) {
    for (const name of names) {
      for (const span of MASKS[name]?.(text) ?? []) {
        for (let i = span.start; i < span.end; i++) forget(byPlace, salt, position + i);
      }
    }
  }
}
