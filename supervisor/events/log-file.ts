import {
  close,
  closeSync,
  createReadStream,
  fdatasync,
  fstatSync,
  fsync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import type { HoldfastEvent } from '../api/types.js';
import { decodeEvent, splitLines } from './ndjson.js';

/**
 * Two files, `events.ndjson` and the one before it, `events.1.ndjson`, each of at most `maxBytes`. One process writes;
 * lines are written at once as they come, so a killed supervisor loses nothing; a last line that is torn is cut off at the start.
 */
export class LogFile {
  readonly #current: string;
  readonly #previous: string;
  #fd: number;
  #size: number;
  /** A file was created or renamed since the folder was last synced. */
  #folderDirty = true;

  /** Sequence number of the last event on disk, 0 for none. */
  readonly lastSeq: number;
  /** Bytes of a torn tail that were cut off. */
  readonly repairedBytes: number;

  constructor(
    private readonly dir: string,
    private readonly maxBytes: number,
  ) {
    makeDirectories(dir);
    this.#current = join(dir, 'events.ndjson');
    this.#previous = join(dir, 'events.1.ndjson');
    const tail = lastEvent(readIfThere(this.#current));
    if (tail.torn > 0) {
      truncateSync(this.#current, tail.end);
    }
    this.repairedBytes = tail.torn;
    this.lastSeq = tail.seq || lastEvent(readIfThere(this.#previous)).seq;
    this.#fd = openSync(this.#current, 'a', 0o600);
    this.#size = tail.end;
  }

  /** Writes whole lines. If that fails the file is as before, so that the next line does not join a half one. */
  append(lines: string): void {
    const bytes = Buffer.from(lines);
    if (this.#size > 0 && this.#size + bytes.length > this.maxBytes) {
      this.#rotate();
    }
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#fd, bytes, done);
      }
      this.#size += bytes.length;
    } catch (error) {
      ftruncateSync(this.#fd, this.#size);
      throw error;
    }
  }

  /** Everything appended so far is on the disk when this resolves. */
  async sync(): Promise<void> {
    await promisify(fdatasync)(this.#fd);
    if (this.#folderDirty) {
      this.#folderDirty = false;
      const folder = openSync(this.dir, 'r');
      await promisify(fsync)(folder).finally(() => closeSync(folder));
    }
  }

  /** Events from `since` on, as the files stand at the first `next()`; a rotation meanwhile does not disturb it. */
  async *read(since: number): AsyncGenerator<HoldfastEvent> {
    const files = [this.#previous, this.#current].map(openIfThere);
    // Not beyond what is written by now: the last line could be read half.
    const sizes = files.map(fd => (fd === undefined ? 0 : fstatSync(fd).size));
    try {
      for (const [index, fd] of files.entries()) {
        if (fd === undefined || sizes[index] === 0) {
          continue;
        }
        const end = sizes[index]! - 1;
        const chunks = createReadStream('', { fd, start: 0, end, autoClose: false, encoding: 'utf8' });
        for await (const line of splitLines(chunks as AsyncIterable<string>)) {
          const event = decodeEvent(line);
          if (event && event.seq >= since) {
            yield event;
          }
        }
      }
    } finally {
      for (const fd of files) {
        if (fd !== undefined) {
          closeSync(fd);
        }
      }
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  #rotate(): void {
    const full = this.#fd;
    renameSync(this.#current, this.#previous);
    try {
      this.#fd = openSync(this.#current, 'a', 0o600);
    } catch (error) {
      // As it was, so that the next append can try again.
      renameSync(this.#previous, this.#current);
      throw error;
    }
    this.#size = 0;
    this.#folderDirty = true;
    // Off the caller's path: a recovery may be under way.
    fdatasync(full, () => close(full));
  }
}

/** Last whole event, where it ends, and how many bytes after it are of no use. */
function lastEvent(bytes: Buffer): { seq: number; end: number; torn: number } {
  let end = bytes.lastIndexOf('\n') + 1;
  while (end > 0) {
    const start = end < 2 ? 0 : bytes.lastIndexOf('\n', end - 2) + 1;
    const event = decodeEvent(bytes.toString('utf8', start, end));
    if (event) {
      return { seq: event.seq, end, torn: bytes.length - end };
    }
    end = start;
  }
  return { seq: 0, end: 0, torn: bytes.length };
}

function readIfThere(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    return ignoreMissing(error) ?? Buffer.alloc(0);
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    return ignoreMissing(error);
  }
}

function ignoreMissing(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
    throw error;
  }
}
