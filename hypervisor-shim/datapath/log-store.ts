import { native } from '../native/native.js';
import { CONST, type Flow, KIND, Mark, SegHeader, SegKey } from './layout.generated.js';

/** A piece of logged bytes: `length` bytes at `offset` of `bytes` (the mapped log, so nothing is copied). */
export interface Piece {
  bytes: Uint8Array;
  offset: number;
  length: number;
}

export interface CausalMark {
  in: bigint;
  out: bigint;
  order: bigint;
  /** The byte at `in` is urgent data. */
  urgent: boolean;
}

/** A captured segment of output: 2 KiB of stream, and which of its bytes are present. */
export interface CapturedSegment {
  kind: number;
  index: number;
  bytes: Uint8Array;
  present: Uint8Array;
}

/** Where an input position lies: index of its segment, offset in that, and the segment's size. The twin of `input_index`. */
export function inputPlace(position: bigint): { index: number; offset: number; size: number } {
  const beyond = position - BigInt(CONST.SMALL_BYTES);
  if (beyond < 0n) return { index: 0, offset: Number(position), size: CONST.SMALL_BYTES };
  return {
    index: 1 + Number(beyond >> BigInt(CONST.LARGE_SHIFT)),
    offset: Number(beyond & BigInt(CONST.LARGE_BYTES - 1)),
    size: CONST.LARGE_BYTES,
  };
}

export const inputSegmentBytes = (index: number): number =>
  index === 0 ? CONST.SMALL_BYTES : CONST.LARGE_BYTES;

const SLAB_STRIDE = CONST.SLAB_BYTES + CONST.SLAB_PAD;
const UNITS_PER_SLAB = CONST.SLAB_BYTES >>> CONST.UNIT_SHIFT;

/** So many times what the log holds of marks may have been made; those that found no room are in no segment. */
const MARKS_LOST = 4;
/** Longest span that a mask takes out (`LONGEST_DATE` in replay/masks). */
const MASKED = 64;
/** A flow has at most so many segments of one kind (`INDEX_MASK` in bpf/log.h). */
const INDEXES = 2 ** 28;

/**
 * Read access to the log of one service: the mapped slabs, found through the pinned index of segments. Each segment says itself
 * whose it is; one that does not, or that would lie outside the log, counts as not there.
 */
export class LogStore {
  /**
   * @param addressOf the index of segments: the address of a key, undefined for none
   * @param slabs the mapped slabs
   */
  constructor(
    private readonly addressOf: (key: Uint8Array) => number | undefined,
    private readonly slabs: Uint8Array,
  ) {}

  /** The log behind the descriptors of its two maps. */
  static map(segmentsFd: number, slabsFd: number, slabCount: number): LogStore {
    const value = new Uint32Array(1);
    const bytes = new Uint8Array(value.buffer);
    const addressOf = (key: Uint8Array) =>
      native.mapLookup(segmentsFd, key, bytes, 0) ? value[0]! : undefined;
    return new LogStore(addressOf, new Uint8Array(native.mapFd(slabsFd, slabCount * SLAB_STRIDE)));
  }

  /** Addresses (64-byte units) of the segments of one slab: the first, their number and their distance. */
  static slabLayout(slab: number, stride: number): { first: number; count: number; stride: number } {
    // Unit 0 stays unused: address 0 means "no segment".
    const first = slab * UNITS_PER_SLAB + (slab === 0 ? 1 : 0);
    const count = Math.floor((CONST.SLAB_BYTES - CONST.SEG_HEADER) / stride);
    return { first, count, stride: stride >>> CONST.UNIT_SHIFT };
  }

  private offsetOf(address: number): number {
    const slab = Math.floor(address / UNITS_PER_SLAB);
    return slab * SLAB_STRIDE + (address % UNITS_PER_SLAB) * (1 << CONST.UNIT_SHIFT);
  }

  /** Offset in `slabs` of the segment's bytes, or undefined. */
  private find(flow: number, kind: number, index: number): number | undefined {
    if (index >= INDEXES) return undefined;
    const key = new SegKey();
    key.flow = flow;
    key.kind_index = ((kind << 28) | index) >>> 0;
    const address = this.addressOf(key.bytes);
    if (address === undefined) return undefined;
    const at = this.offsetOf(address);
    const isLarge = kind === KIND.INPUT && index > 0;
    const header = this.header(at, isLarge ? CONST.LARGE_STRIDE : CONST.SMALL_STRIDE);
    if (header?.flow !== flow || header.kind_index !== key.kind_index) return undefined;
    return at + CONST.SEG_HEADER;
  }

  /** Header of the segment at an offset; undefined if so many bytes from there on are not in the log. */
  private header(at: number, stride: number): SegHeader | undefined {
    if (at + stride > this.slabs.length) return undefined;
    return new SegHeader(new DataView(this.slabs.buffer, this.slabs.byteOffset + at, SegHeader.BYTES));
  }

  /** Segments that the log could hold if all were small. */
  private get capacity(): number {
    return Math.ceil(this.slabs.length / CONST.SMALL_STRIDE);
  }

  /** The logged input from `from` on, up to `to` or the end of a segment, whichever is first. Undefined: not in memory. */
  input(flow: number, from: bigint, to: bigint): Piece | undefined {
    const { index, offset, size } = inputPlace(from);
    const start = this.find(flow, KIND.INPUT, index);
    if (start === undefined) return undefined;
    const wanted = to - from;
    const room = size - offset;
    const length = wanted < BigInt(room) ? Number(wanted) : room;
    return { bytes: this.slabs, offset: start + offset, length };
  }

  /** The whole input segment of this index. Undefined: not in memory. */
  inputSegment(flow: number, index: number): Uint8Array | undefined {
    const start = this.find(flow, KIND.INPUT, index);
    return start === undefined ? undefined : this.slabs.subarray(start, start + inputSegmentBytes(index));
  }

  /**
   * Captured output from `from` on, at most `most` bytes, as far as it is there; none if the first is not. Up to `MASKED` bytes between others
   * that are not there (a mask has taken them from the comparator) read as zeros.
   */
  output(flow: number, from: bigint, most: number): Uint8Array {
    const found = new Uint8Array(most);
    let end = 0;
    let start: number | undefined;
    for (let n = 0; n < most && n - end <= MASKED; n++) {
      const at = from + BigInt(n);
      const offset = Number(at & BigInt(CONST.SMALL_BYTES - 1));
      if (n === 0 || offset === 0)
        start = this.find(flow, KIND.OUTPUT, Number(at >> BigInt(CONST.SMALL_SHIFT)));
      const isPresent =
        start !== undefined &&
        (this.slabs[start + CONST.SMALL_BYTES + (offset >>> 3)]! & (1 << (offset & 7))) !== 0;
      if (isPresent) {
        found[n] = this.slabs[start! + offset]!;
        end = n + 1;
      } else if (n === 0) break;
    }
    return found.subarray(0, end);
  }

  /** The flow's causal marks in order of input position. A count beyond what the log could ever hold is not believed. */
  marks(flow: number, count: number): CausalMark[] {
    const marks: CausalMark[] = [];
    const perSegment = CONST.SMALL_BYTES / CONST.MARK_BYTES;
    const end = Math.min(count, MARKS_LOST * this.capacity * perSegment);
    let start: number | undefined;
    for (let n = 0; n < end; n++) {
      if (n % perSegment === 0) start = this.find(flow, KIND.MARKS, n / perSegment);
      // A mark that found no room is not there, nor is one that is being written.
      if (start === undefined || this.slabs[start + CONST.SMALL_BYTES + (n % perSegment)] !== 1) continue;
      const at = start + (n % perSegment) * CONST.MARK_BYTES;
      const m = new Mark(new DataView(this.slabs.buffer, this.slabs.byteOffset + at, CONST.MARK_BYTES));
      marks.push({ in: m.in, out: m.out, order: m.order, urgent: m.urgent !== 0n });
    }
    return marks.sort((a, b) => (a.in < b.in ? -1 : a.in > b.in ? 1 : 0));
  }

  /** The flow's captured output and samples, by walking its list of segments; bounded, the list may be damaged. */
  captured(flow: Flow): CapturedSegment[] {
    const found: CapturedSegment[] = [];
    let address = flow.segments;
    for (let n = 0; address !== 0 && n < this.capacity; n++) {
      const at = this.offsetOf(address);
      const header = this.header(at, CONST.SMALL_STRIDE);
      if (!header) break;
      const kind = header.kind_index >>> 28;
      if (kind === KIND.OUTPUT || kind === KIND.SAMPLES) {
        const start = at + CONST.SEG_HEADER;
        found.push({
          kind,
          index: header.kind_index & 0xfffffff,
          bytes: this.slabs.subarray(start, start + CONST.SMALL_BYTES),
          present: this.slabs.subarray(
            start + CONST.SMALL_BYTES,
            start + CONST.SMALL_BYTES + CONST.SMALL_BYTES / 8,
          ),
        });
      }
      address = header.next;
    }
    return found.sort((a, b) => a.index - b.index);
  }
}
