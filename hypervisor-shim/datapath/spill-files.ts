import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
  writevSync,
} from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { inputPlace, inputSegmentBytes, type Piece } from './log-store.js';

/**
 * Input that was moved from the log's memory to files: one for each flow, named FLOW-GENERATION, unlinked when the flow ends.
 *
 *   | header | segment 0: 2 KiB | header | segment 1: 16 KiB | header | segment 2: 16 KiB | ...
 *
 *   header, 32 bytes: magic, flow, generation, index (u32), life (u64), CRC-32 of the segment (u32), 0 (u32)
 *
 * A segment's place follows from its index, and each says itself what it is: there is no index that could be wrong, writing one
 * again changes nothing, and what is damaged harms its own connection alone. Which segments are *only* here says the flow
 * table (`in_first`), which outlives us as the data path does. Nothing is synced: a crash of the host ends the connections, too.
 */

const MAGIC = 0x31504648; // "HFP1"
const HEADER = 32;
const MODE = 0o600;
const { O_CREAT, O_WRONLY } = constants;

/** The record of a segment that was spilled is missing, cut off or not what was written. */
export class SpillDamaged extends Error {}

/** Where the record of a segment starts, which is also how long a file is that holds all before it. */
export function placeOf(index: number): number {
  if (index === 0) return 0;
  return HEADER + inputSegmentBytes(0) + (index - 1) * (HEADER + inputSegmentBytes(1));
}

export interface SpillFile {
  flow: number;
  generation: number;
  bytes: number;
}

export class SpillFiles {
  /** @param life what tells this data path from every other: its flows' ids and generations come again */
  constructor(
    readonly directory: string,
    private readonly life: bigint,
  ) {}

  /** Makes the directory, which holds what clients sent: for root only. */
  prepare(): void {
    mkdirSync(this.directory, { recursive: true, mode: 0o700 });
  }

  /** Stores the segments `first`, `first + 1`, ... When it returns they survive us. Throws what the file system says (ENOSPC). */
  write(flow: number, generation: number, first: number, segments: Uint8Array[]): void {
    const pieces = segments.flatMap((bytes, i) => [this.header(flow, generation, first + i, bytes), bytes]);
    const fd = openSync(this.path(flow, generation), O_WRONLY | O_CREAT, MODE);
    try {
      const at = placeOf(first);
      const total = placeOf(first + segments.length) - at;
      let done = writevSync(fd, pieces, at);
      if (done === total) return;
      // A disk that fills takes a part, and says why with the rest.
      const all = Buffer.concat(pieces);
      while (done < total) done += writeSync(fd, all, done, total - done, at + done);
    } finally {
      closeSync(fd);
    }
  }

  /** One segment. Throws `SpillDamaged`. */
  read(flow: number, generation: number, index: number): Uint8Array {
    const damaged = (what: string) =>
      new SpillDamaged(`segment ${index} of its spilled input ${what} (${this.path(flow, generation)})`);
    const record = Buffer.alloc(HEADER + inputSegmentBytes(index));
    let got: number;
    try {
      const fd = openSync(this.path(flow, generation), 'r');
      try {
        got = readSync(fd, record, 0, record.length, placeOf(index));
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // What else goes wrong (EMFILE) goes by.
      if (code === 'ENOENT' || code === 'EIO') throw damaged(`cannot be read: ${code}`);
      throw error;
    }
    if (got < record.length) throw damaged('is cut off');
    const bytes = record.subarray(HEADER);
    if (!record.subarray(0, HEADER).equals(this.header(flow, generation, index, bytes))) {
      throw damaged('is damaged');
    }
    return bytes;
  }

  /** What there is, of whatever life. */
  list(): SpillFile[] {
    return readdirSync(this.directory).flatMap(name => {
      const found = /^(\d+)-(\d+)$/.exec(name);
      if (!found) return [];
      const [flow, generation] = [Number(found[1]), Number(found[2])];
      return { flow, generation, bytes: this.size(flow, generation) };
    });
  }

  /** Bytes of a flow's file; 0 if there is none. */
  size(flow: number, generation: number): number {
    return statSync(this.path(flow, generation), { throwIfNoEntry: false })?.size ?? 0;
  }

  remove(flow: number, generation: number): void {
    rmSync(this.path(flow, generation), { force: true });
  }

  private path(flow: number, generation: number): string {
    return join(this.directory, `${flow}-${generation}`);
  }

  private header(flow: number, generation: number, index: number, bytes: Uint8Array): Buffer {
    const header = Buffer.alloc(HEADER);
    [MAGIC, flow, generation, index].forEach((word, i) => void header.writeUInt32LE(word, 4 * i));
    header.writeBigUInt64LE(this.life, 16);
    header.writeUInt32LE(crc32(bytes), 24);
    return header;
  }
}

/** Reads one flow's spilled input from its start to its end: the segment last read is kept. */
export class SpilledInput {
  private last: { index: number; bytes: Uint8Array } | undefined;

  constructor(
    private readonly files: SpillFiles,
    private readonly flow: number,
    private readonly generation: number,
  ) {}

  /** The input from `from` on, up to `to` or the end of a segment. Throws `SpillDamaged`. */
  input(from: bigint, to: bigint): Piece {
    const { index, offset, size } = inputPlace(from);
    if (this.last?.index !== index) {
      this.last = { index, bytes: this.files.read(this.flow, this.generation, index) };
    }
    const wanted = to - from;
    const room = size - offset;
    return { bytes: this.last.bytes, offset, length: wanted < BigInt(room) ? Number(wanted) : room };
  }
}
