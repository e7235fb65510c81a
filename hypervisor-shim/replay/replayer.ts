import { EventEmitter, once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { ServiceAddresses } from '../datapath/addresses.js';
import type { DataPath } from '../datapath/datapath.js';
import { HoldfastError } from '../errors.js';
import { createReplayNamespace, type ReplayNamespace, removeReplayNamespace } from './namespace.js';
import type { EndCommand, FlowVerdict, RecoverCommand, WorkerMessage, WorkerSetup } from './protocol.js';

export type { FlowVerdict } from './protocol.js';

/** A worker looks whether it is to end many times in a second. */
const END_MS = 5000;

export interface ReplayerOptions extends ServiceAddresses {
  /** Names of the namespace and of its veth's host end. */
  namespace: string;
  device: string;
  guestMac: string;
  masks: string[];
  concurrency?: number;
  /** Where input lies that is not in memory any more, if the log is spilled. */
  spillDirectory?: string | undefined;
}

/**
 * Ready to replay: a fresh namespace and a worker thread in it, made ahead of the fault. One replayer serves one
 * recovery; the next fault gets a new one, so that no half-open socket of an earlier replay can speak.
 *
 *   const r = await Replayer.prepare(path, options);  r.on('verdicts', ...);  await r.recover({...});  await r.dispose();
 */
export class Replayer extends EventEmitter<{ verdicts: [FlowVerdict[]] }> {
  private constructor(
    private readonly worker: Worker,
    private readonly options: ReplayerOptions,
    private readonly stop: Int32Array,
  ) {
    super();
  }

  static async prepare(path: DataPath, o: ReplayerOptions): Promise<Replayer> {
    const ns = await createReplayNamespace(o.namespace, o.device, o, o.guestMac);
    try {
      return await Replayer.start(path, o, ns);
    } catch (e) {
      await removeReplayNamespace(o.namespace, o.device);
      throw e;
    }
  }

  private static async start(path: DataPath, o: ReplayerOptions, ns: ReplayNamespace): Promise<Replayer> {
    path.attachReplay(ns.ifindex, ns.mac);
    const setup: WorkerSetup = {
      pinDirectory: path.pinDirectory,
      namespace: ns.path,
      address: o.address,
      address6: o.address6,
      guestMac: path.control.guest_mac.slice(0, 6),
      masks: o.masks,
      concurrency: o.concurrency ?? 128,
      wireIfindex: path.control.wire_ifindex,
      spillDirectory: o.spillDirectory,
      stop: new SharedArrayBuffer(4),
    };
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: setup });
    worker.unref();
    await once(worker, 'message');
    return new Replayer(worker, o, new Int32Array(setup.stop));
  }

  /** Replays every held flow into the guest of `slot`. Returns whether that guest was fenced meanwhile (a second fault). */
  async recover(
    command: Omit<RecoverCommand, 'type'>,
  ): Promise<{ fenced: boolean; verdicts: FlowVerdict[] }> {
    const verdicts: FlowVerdict[] = [];
    this.worker.ref();
    try {
      return await new Promise((resolve, reject) => {
        const fail = (text: string) =>
          reject(
            new HoldfastError(
              'HF_REPLAY',
              `the replay stopped: ${text}`,
              'Flows stay held; the next recovery replays them.',
            ),
          );
        this.worker.once('error', e => fail(String(e)));
        this.worker.once('exit', code => fail(`worker ended with ${code}`));
        this.worker.on('message', (m: WorkerMessage) => {
          if (m.type === 'verdicts') {
            verdicts.push(...m.verdicts);
            this.emit('verdicts', m.verdicts);
          } else if (m.type === 'done') resolve({ fenced: m.fenced, verdicts });
          else if (m.type === 'error') fail(m.message);
        });
        this.worker.postMessage({ type: 'recover', ...command } satisfies RecoverCommand);
      });
    } finally {
      this.worker.removeAllListeners();
      this.worker.unref();
    }
  }

  /** Ends a recovery that is under way. The worker closes by itself what it has open: the end of a thread alone closes nothing. */
  async dispose(): Promise<void> {
    Atomics.store(this.stop, 0, 1);
    if (this.worker.threadId !== -1) {
      this.worker.ref();
      const ended = once(this.worker, 'exit', { signal: AbortSignal.timeout(END_MS) });
      this.worker.postMessage({ type: 'end' } satisfies EndCommand);
      await ended.catch(() => this.worker.terminate());
    }
    await removeReplayNamespace(this.options.namespace, this.options.device);
  }
}
