import { EventEmitter, once } from 'node:events';
import type { HoldfastEvent } from '../api/types.js';
import { LogFile } from './log-file.js';
import { decodeEvent, encodeEvent } from './ndjson.js';

export interface EventLogOptions {
  /** Size of each of the two files, bytes. */
  maxBytes?: number;
  /** Told when an event could not be stored; the event still reaches the followers. */
  onError?: (error: Error) => void;
}

/** Types that must survive a crash of the host too: they are what an operator reads afterwards. */
const DURABLE = /^(fault|recovery|connection|guest)\./;

/** An event to be, without what the log adds. */
export interface NewEvent {
  type: string;
  message: string;
  data?: Record<string, unknown>;
}

/** Events kept in memory for followers; one that falls behind reads the files instead. */
const RECENT = 1024;

/**
 * The supervisor's memory of what happened. `append` is synchronous and cheap (one write to the page cache; the sync to
 * disk runs beside it), so it may be called in the middle of a recovery, and never throws. Sequence numbers start
 * at 1 and go on after a restart.
 */
export class EventLog {
  readonly #file: LogFile;
  readonly #onError: (error: Error) => void;
  readonly #changed = new EventEmitter().setMaxListeners(0);
  readonly #recent: HoldfastEvent[] = [];
  readonly #listeners: ((event: HoldfastEvent) => void)[] = [];
  #lastSeq: number;
  #errors = 0;
  #closed = false;
  #syncing: Promise<void> | undefined;
  #syncAgain = false;

  private constructor(file: LogFile, options: EventLogOptions) {
    this.#file = file;
    this.#lastSeq = file.lastSeq;
    this.#onError = error => {
      this.#errors++;
      options.onError?.(error);
    };
  }

  /** Opens (or makes) the log in folder `dir`; a last line torn by a crash is cut off and that is logged. */
  static open(dir: string, options: EventLogOptions = {}): EventLog {
    const file = new LogFile(dir, options.maxBytes ?? 16 * 1024 * 1024);
    const log = new EventLog(file, options);
    if (file.repairedBytes > 0) {
      const message = `removed ${file.repairedBytes} bytes of an unfinished line from the event log`;
      log.append('events.repaired', undefined, message, { bytes: file.repairedBytes });
    }
    return log;
  }

  /** Sequence number of the newest event, 0 if there never was one. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Events and syncs that failed since the log was opened. */
  get errors(): number {
    return this.#errors;
  }

  /** Calls `listener` with each event from now on, within `append`: it must be quick, and not throw. */
  listen(listener: (event: HoldfastEvent) => void): void {
    this.#listeners.push(listener);
  }

  /** Stores one event and hands it to the followers. `fault.*`, `recovery.*`, `connection.*` and `guest.*` are synced to disk. */
  append(
    type: string,
    service: string | undefined,
    message: string,
    data: Record<string, unknown> = {},
  ): HoldfastEvent {
    return this.appendAll(service, [{ type, message, data }])[0]!;
  }

  /** Many at once, by one write: the verdicts of a recovery come by the thousand. */
  appendAll(service: string | undefined, events: readonly NewEvent[]): HoldfastEvent[] {
    const at = Date.now();
    const lines = events.map(({ type, message, data = {} }) =>
      encodeEvent({ seq: ++this.#lastSeq, at, type, service, message, data }),
    );
    // What followers get is what a later reader will get.
    const stored = lines.map(line => decodeEvent(line)!);
    this.#recent.push(...stored);
    this.#recent.splice(0, this.#recent.length - RECENT);
    try {
      if (this.#closed) {
        throw new Error(`the event log is closed, event ${events[0]?.type} is not stored`);
      }
      this.#file.append(lines.join(''));
      if (events.some(({ type }) => DURABLE.test(type))) {
        this.#sync();
      }
    } catch (error) {
      this.#onError(error as Error);
    }
    for (const listener of this.#listeners) for (const event of stored) listener(event);
    this.#changed.emit('change');
    return stored;
  }

  /** Stored events with `seq >= since`, oldest first, up to the newest at the time of the call. */
  async *since(since: number): AsyncGenerator<HoldfastEvent> {
    const last = this.#lastSeq;
    let next = since;
    // Again if the consumer was so slow that the memory has moved on meanwhile.
    for (let progress = true; progress && next <= last && !this.#remembers(next); ) {
      progress = false;
      for await (const event of this.#file.read(next)) {
        if (event.seq > last) {
          return;
        }
        // Rotation may hide old events, but never repeats or reorders them.
        if (event.seq >= next) {
          progress = true;
          next = event.seq + 1;
          yield event;
        }
      }
    }
    yield* this.#recent.filter(event => event.seq >= next && event.seq <= last);
  }

  /** `since(since)`, then every new event until `signal` aborts or the log is closed. */
  async *follow(since: number, signal: AbortSignal): AsyncGenerator<HoldfastEvent> {
    let next = since;
    while (!signal.aborted) {
      const last = this.#lastSeq;
      for await (const event of this.since(next)) {
        if (signal.aborted) {
          return;
        }
        next = event.seq + 1;
        yield event;
      }
      next = Math.max(next, last + 1);
      if (this.#closed) {
        return;
      }
      if (this.#lastSeq < next) {
        await once(this.#changed, 'change', { signal }).catch(() => {});
      }
    }
  }

  /** `SupervisorOperations.events`. */
  events(since: number, follow: boolean, signal: AbortSignal): AsyncIterable<HoldfastEvent> {
    return follow ? this.follow(since, signal) : this.since(since);
  }

  /** Resolves when what was appended so far is on the disk. */
  async flush(): Promise<void> {
    this.#sync();
    await this.#syncing;
  }

  /** Ends the followers and closes the file. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#changed.emit('change');
    await this.flush();
    this.#file.close();
  }

  #remembers(seq: number): boolean {
    return this.#recent[0] !== undefined && this.#recent[0].seq <= seq;
  }

  /** One sync at a time; those asked for meanwhile share the next one. */
  #sync(): void {
    if (this.#syncing) {
      this.#syncAgain = true;
      return;
    }
    this.#syncing = this.#runSyncs().finally(() => {
      this.#syncing = undefined;
    });
  }

  async #runSyncs(): Promise<void> {
    do {
      this.#syncAgain = false;
      await this.#file.sync().catch(this.#onError);
    } while (this.#syncAgain);
  }
}
