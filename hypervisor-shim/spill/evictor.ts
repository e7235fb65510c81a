import type { DataPath } from '../datapath/datapath.js';
import { CONST, type Flow, OP, RESULT, STATE } from '../datapath/layout.generated.js';
import { inputPlace } from '../datapath/log-store.js';
import { minPosition } from '../datapath/positions.js';
import { placeOf, type SpillFile, type SpillFiles } from '../datapath/spill-files.js';
import { native } from '../native/native.js';
import { promiseRoom } from './lease.js';

/** Shares of the large segments that are free: below the first, segments are moved out until the second is. */
const LOW = 1 / 2;
const ENOUGH = 5 / 8;
/** With less than this free, and nothing that could be moved out, the log is as good as full. */
const SCARCE = 1 / 16;

/** What is spilled, in bytes of files. */
export interface SpillState {
  directory: string;
  bytes: number;
  limitBytes: number;
  /** Input moved out of memory since this began, bytes of the stream. */
  moved: number;
  /** There is no room in the files for what should be moved out. */
  full: boolean;
  /** What the file system said to the last try; undefined if it was content. */
  error: string | undefined;
}

interface Candidate {
  id: number;
  flow: Flow;
  /** The segments [first, first + count) may go. */
  first: number;
  count: number;
}

/**
 * Moves input that the guest has acknowledged from the log's memory to files, the largest users' oldest segments first, ahead of
 * need: the data path itself can only drop what finds no room. It may die between any two steps:
 *
 *   write    the segments are in memory and in the file       (killed here: they are written again)
 *   free     HF_OP_SPILL, compare-and-set on `in_first`: in the file alone
 *
 * Held and replayed flows are left alone, so that a replay never finds a segment gone that it has just looked up. Everything
 * blocks: for a thread of its own.
 */
export class Evictor {
  private readonly files = new Map<string, SpillFile>();
  private readonly largeTotal: number;
  private bytes = 0;
  private moved = 0;
  private full = false;
  private error: string | undefined;

  /** Takes over the files of live flows, and removes all others. */
  constructor(
    private readonly path: DataPath,
    private readonly store: SpillFiles,
    private readonly limitBytes: number,
  ) {
    this.largeTotal = native.mapInfo(path.fd('free_large')).maxEntries;
    store.prepare();
    for (const file of store.list()) {
      this.files.set(keyOf(file), file);
      this.bytes += file.bytes;
    }
    this.sweep();
  }

  get state(): SpillState {
    const { bytes, moved, full, error, limitBytes } = this;
    return { directory: this.store.directory, bytes, limitBytes, moved, full, error };
  }

  /** Makes room if there is too little. `failed`: the file system did not take it, see `state.error`. */
  round(): 'calm' | 'moved' | 'stuck' | 'failed' {
    const before = this.moved;
    let result: 'calm' | 'moved' | 'stuck' | 'failed' = 'calm';
    if (!this.enough(LOW) || !this.enoughSmall()) {
      try {
        this.evictAll();
        result = this.moved > before ? 'moved' : 'stuck';
      } catch (error) {
        this.error = error instanceof Error ? error.message : String(error);
        result = 'failed';
      }
    }
    if (result === 'calm' || result === 'moved' || (!this.full && !this.error && this.enough(SCARCE))) {
      promiseRoom(this.path.control);
    }
    return result;
  }

  /** Removes the files of flows that have ended, or left the log. */
  sweep(): void {
    for (const file of this.files.values()) {
      const record = this.path.flow(file.flow);
      const live = record?.generation === file.generation && record.state !== STATE.CLOSED;
      if (live && !record.unlogged) continue;
      this.store.remove(file.flow, file.generation);
      this.bytes -= file.bytes;
      this.files.delete(keyOf(file));
      this.full = false;
    }
  }

  private enough(share: number): boolean {
    return this.path.control.large_free >= share * this.largeTotal;
  }

  /** Captures leave the small segments of the reserve to input. */
  private enoughSmall(): boolean {
    return this.path.control.small_free >= this.path.control.small_reserve;
  }

  private evictAll(): void {
    this.full = false;
    for (const candidate of this.candidates()) {
      this.evict(candidate);
      if (this.full || (this.enough(ENOUGH) && this.enoughSmall())) break;
    }
    if (!this.full) this.error = undefined;
  }

  private candidates(): Candidate[] {
    const all: Candidate[] = [];
    const large = !this.enough(ENOUGH);
    for (const { id, flow } of this.path.flows()) {
      if ((flow.state !== STATE.TRACKED && flow.state !== STATE.SPLICED) || flow.unlogged) continue;
      if (!this.path.inCurrentEpoch(flow)) continue;
      const first = flow.in_first;
      const count = inputPlace(minPosition(flow.g_ack, flow.in_end)).index - first;
      // Without need of large segments only those go that hold a small one.
      if (count > 0 && (large ? first + count > 1 : first === 0)) all.push({ id, flow, first, count });
    }
    return all.sort((a, b) => b.count - a.count);
  }

  private evict({ id, flow: { generation }, first, count }: Candidate): void {
    const file = this.fileOf(id, generation);
    for (let done = 0; done < count; ) {
      const at = first + done;
      let n = Math.min(count - done, CONST.SPILL_AT_ONCE);
      while (n > 0 && this.bytes + placeOf(at + n) - file.bytes > this.limitBytes) n--;
      this.full = n === 0;
      if (n === 0 || !this.move(file, at, n)) return;
      done += n;
      if (this.enough(ENOUGH) && this.enoughSmall()) return;
    }
  }

  private move(file: SpillFile, first: number, count: number): boolean {
    const { flow, generation } = file;
    const segments: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const segment = this.path.log.inputSegment(flow, first + i);
      if (!segment) return false; // the flow has ended meanwhile
      segments.push(segment);
    }
    try {
      this.store.write(flow, generation, first, segments);
    } finally {
      const bytes = this.store.size(flow, generation);
      this.bytes += bytes - file.bytes;
      file.bytes = bytes;
    }
    if (!this.free(flow, generation, first, count)) return false;
    this.moved += segments.reduce((sum, { length }) => sum + length, 0);
    return true;
  }

  /** Apart, so that tests can die before and after it. */
  protected free(flow: number, generation: number, first: number, count: number): boolean {
    return this.path.transition(OP.SPILL, flow, generation, { first, count }) === RESULT.DONE;
  }

  private fileOf(flow: number, generation: number): SpillFile {
    const known = this.files.get(keyOf({ flow, generation }));
    if (known) return known;
    const file = { flow, generation, bytes: 0 };
    this.files.set(keyOf(file), file);
    return file;
  }
}

const keyOf = ({ flow, generation }: Pick<SpillFile, 'flow' | 'generation'>): string =>
  `${flow}-${generation}`;
