import { EventEmitter, once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { DataPath } from '../datapath/datapath.js';
import { HoldfastError } from '../errors.js';
import type { SpillState } from './evictor.js';
import type { SpillSetup } from './worker.js';

export type { SpillState } from './evictor.js';

/**
 * Keeps room in the log's memory by moving input to files in `directory`, in a thread of its own. Files of flows that are no
 * more are removed, at the start too; those of live flows stay when it stops, for whoever starts next.
 *
 *   const s = await Spiller.start(path, { directory, sizeMiB });  s.on('state', ...);  await s.stop();
 */
export class Spiller extends EventEmitter<{ state: [SpillState]; failed: [Error] }> {
  private constructor(
    private readonly worker: Worker,
    private readonly stopped: Int32Array,
    public state: SpillState,
  ) {
    super();
    worker.on('message', (state: SpillState) => {
      this.state = state;
      this.emit('state', state);
    });
    worker.on('error', error => this.emit('failed', error as Error));
  }

  /** Throws `HF_SPILL_DIRECTORY`. */
  static async start(path: DataPath, o: { directory: string; sizeMiB: number }): Promise<Spiller> {
    const stop = new SharedArrayBuffer(4);
    const { pinDirectory } = path;
    const { directory } = o;
    const setup: SpillSetup = { pinDirectory, directory, limitBytes: o.sizeMiB * 2 ** 20, stop };
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: setup });
    try {
      const [state] = (await once(worker, 'message')) as [SpillState];
      worker.unref();
      return new Spiller(worker, new Int32Array(stop), state);
    } catch (cause) {
      throw new HoldfastError(
        'HF_SPILL_DIRECTORY',
        `log.spill: the log cannot be spilled to ${directory}: ${(cause as Error).message}`,
        'Give a directory of a disk that can be written, in log.spill.directory.',
        { cause },
      );
    }
  }

  /** Resolves when nothing is written any more. */
  async stop(): Promise<void> {
    const ended = new Promise<void>(resolve => this.worker.once('exit', () => resolve()));
    if (this.worker.threadId === -1) return;
    this.worker.ref();
    Atomics.store(this.stopped, 0, 1);
    Atomics.notify(this.stopped, 0);
    await ended;
  }
}
