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

/** Read access to the log of one service: the mapped slabs, found through the pinned index of segments. */
export class LogStore {
  private readonly slabs: Uint8Array;

  constructor(
    private readonly segmentsFd: number,
    slabsFd: number,
    slabCount: number,
  ) {
    this.slabs = new Uint8Array(native.mapFd(slabsFd, slabCount * SLAB_STRIDE));
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
    const key = new SegKey();
    key.flow = flow;
    key.kind_index = ((kind << 28) | index) >>> 0;
    const value = new Uint8Array(4);
    if (!native.mapLookup(this.segmentsFd, key.bytes, value, 0)) return undefined;
    return this.offsetOf(new DataView(value.buffer).getUint32(0, true)) + CONST.SEG_HEADER;
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

  /** The flow's causal marks in order of input position. */
  marks(flow: number, count: number): CausalMark[] {
    const marks: CausalMark[] = [];
    const perSegment = CONST.SMALL_BYTES / CONST.MARK_BYTES;
    let start: number | undefined;
    for (let n = 0; n < count; n++) {
      if (n % perSegment === 0) start = this.find(flow, KIND.MARKS, n / perSegment);
      // A mark that found no room is not there, nor is one that is being written.
      if (start === undefined || this.slabs[start + CONST.SMALL_BYTES + (n % perSegment)] !== 1) continue;
      const at = start + (n % perSegment) * CONST.MARK_BYTES;
      const m = new Mark(new DataView(this.slabs.buffer, at, CONST.MARK_BYTES));
      marks.push({ in: m.in, out: m.out, order: m.order, urgent: m.urgent !== 0n });
    }
    return marks.sort((a, b) => (a.in < b.in ? -1 : a.in > b.in ? 1 : 0));
  }

  /** The flow's captured output and samples, by walking its list of segments; bounded, the list may be damaged. */
  captured(flow: Flow): CapturedSegment[] {
    const found: CapturedSegment[] = [];
    let address = flow.segments;
    for (let n = 0; address !== 0 && n < 1_000_000; n++) {
      const at = this.offsetOf(address);
      if (at + CONST.SMALL_STRIDE > this.slabs.length) break;
      const header = new SegHeader(new DataView(this.slabs.buffer, at, SegHeader.BYTES));
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
