import type { Position } from './seq.js';

const CHUNK = 4096;

/** Bytes of a stream by position, each present or not; positions may lie far apart. */
export class ByteMap {
  /** Chunks of the stream by index; -1: not present. */
  private readonly chunks = new Map<number, Int16Array>();
  /** Behind the last byte that was ever put. */
  end: Position = 0;

  get(at: Position): number | undefined {
    const value = this.chunks.get(Math.floor(at / CHUNK))?.[at % CHUNK] ?? -1;
    return value < 0 ? undefined : value;
  }

  has(at: Position): boolean {
    return this.get(at) !== undefined;
  }

  put(at: Position, value: number): void {
    const index = Math.floor(at / CHUNK);
    const chunk = this.chunks.get(index) ?? new Int16Array(CHUNK).fill(-1);
    this.chunks.set(index, chunk);
    chunk[at % CHUNK] = value;
    this.end = Math.max(this.end, at + 1);
  }

  /** Maximal runs [start, end) of present bytes from `from` on. */
  runs(from: Position): [Position, Position][] {
    const found: [Position, Position][] = [];
    for (const index of [...this.chunks.keys()].sort((a, b) => a - b)) {
      const chunk = this.chunks.get(index)!;
      for (let i = Math.max(0, from - index * CHUNK); i < CHUNK; i++) {
        if (chunk[i]! < 0) continue;
        const at = index * CHUNK + i;
        const last = found.at(-1);
        if (last?.[1] === at) last[1]++;
        else found.push([at, at + 1]);
      }
    }
    return found;
  }
}
