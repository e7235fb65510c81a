import { Worker } from 'node:worker_threads';
import type { CallReply, CallRequest } from './call-worker.js';
import type { Arguments, Calls, Operation } from './calls.js';
import { connectionClosed, LibvirtError } from './libvirt-error.js';

interface Pending {
  operation: Operation;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** Main-thread end of one lane: calls are carried out in order, each without blocking the main thread. */
export class CallLane {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #exited: Promise<void>;
  #nextId = 1;

  constructor(uri: string, keepAlive: { intervalS: number; count: number }) {
    this.#worker = new Worker(new URL('./call-worker.js', import.meta.url), {
      workerData: { uri, keepAlive },
    });
    this.#worker.on('message', (reply: CallReply) => this.#settle(reply));
    this.#exited = new Promise(resolve => {
      this.#worker.once('error', () => this.#rejectAll());
      this.#worker.once('exit', () => {
        this.#rejectAll();
        resolve();
      });
    });
    // A lane that waits for work must not keep the process alive; one with a call under way must.
    this.#worker.unref();
  }

  /** Rejects with `LibvirtError`. */
  call<O extends Operation>(operation: O, ...args: Arguments<O>): Promise<ReturnType<Calls[O]>> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#worker.ref();
      this.#pending.set(id, { operation, resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ id, operation, args } as CallRequest);
    });
  }

  /** Closes the connection after the calls under way. */
  async close(): Promise<void> {
    this.#worker.ref();
    this.#worker.postMessage('close');
    await this.#exited;
  }

  #settle(reply: CallReply): void {
    const pending = this.#pending.get(reply.id);
    if (!pending) return;
    this.#pending.delete(reply.id);
    if (this.#pending.size === 0) this.#worker.unref();
    if ('failure' in reply) pending.reject(new LibvirtError(pending.operation, reply.failure));
    else pending.resolve(reply.value);
  }

  #rejectAll(): void {
    for (const pending of this.#pending.values()) pending.reject(connectionClosed(pending.operation));
    this.#pending.clear();
  }
}
