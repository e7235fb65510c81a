import { Worker } from 'node:worker_threads';
import { vir } from './binding.js';
import type { FromEventWorker, RawEvent, ToEventWorker } from './event-worker.js';
import { LibvirtError } from './libvirt-error.js';

export interface EventListener {
  event(raw: RawEvent): void;
  /** The daemon or the connection to it died; no event will follow. Subscribe again. */
  lost(): void;
}

/** Ends a subscription. */
export type Unsubscribe = () => Promise<void>;

interface Subscription {
  listener: EventListener;
  subscribed?: { resolve(): void; reject(error: LibvirtError): void };
  unsubscribed?: () => void;
}

/**
 * libvirt's event loop, in a thread of its own, once per process: libvirt keeps one loop for all connections, and only
 * the thread that runs it may be called back, because a callback is JavaScript of that thread.
 */
class EventLoop {
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #worker = new Worker(new URL('./event-worker.js', import.meta.url), {
    workerData: { stop: this.#stop.buffer },
  });
  readonly #subscriptions = new Map<number, Subscription>();
  #timer = -1;
  #nextId = 1;
  #open = 0;
  readonly ready: Promise<void>;

  constructor() {
    this.ready = new Promise((resolve, reject) => {
      this.#worker.once('error', error => {
        reject(error);
        // Uncaught on purpose: without events no fault would be seen, and a supervisor that dies is restarted.
        throw error;
      });
      this.#worker.on('message', (message: FromEventWorker) => {
        if (message.kind === 'ready') {
          this.#timer = message.timer;
          this.#worker.unref();
          resolve();
        } else {
          this.#take(message);
        }
      });
    });
    // Node joins its workers when the process ends, and this one sleeps in libvirt: wake it, or the process hangs.
    process.once('exit', () => {
      Atomics.store(this.#stop, 0, 1);
      if (this.#timer >= 0) vir.updateTimeout(this.#timer, 0);
    });
  }

  async subscribe(uri: string, listener: EventListener): Promise<Unsubscribe> {
    await this.ready;
    const id = this.#nextId++;
    await new Promise<void>((resolve, reject) => {
      this.#subscriptions.set(id, { listener, subscribed: { resolve, reject } });
      this.#ask({ op: 'subscribe', id, uri });
    });
    return async () => {
      const subscription = this.#subscriptions.get(id);
      if (!subscription) return;
      await new Promise<void>(resolve => {
        subscription.unsubscribed = resolve;
        this.#ask({ op: 'unsubscribe', id });
      });
    };
  }

  #ask(message: ToEventWorker): void {
    this.#open++;
    this.#worker.ref();
    this.#worker.postMessage(message);
    vir.updateTimeout(this.#timer, 0);
  }

  /** As with a socket, the process lives while there is a subscription, or a question under way. */
  #answered(): void {
    if (--this.#open === 0 && this.#subscriptions.size === 0) this.#worker.unref();
  }

  #take(message: Exclude<FromEventWorker, { kind: 'ready' }>): void {
    const subscription = this.#subscriptions.get(message.id);
    if (!subscription) return;
    switch (message.kind) {
      case 'subscribed':
        this.#answered();
        subscription.subscribed?.resolve();
        break;
      case 'refused':
        this.#subscriptions.delete(message.id);
        this.#answered();
        subscription.subscribed?.reject(new LibvirtError('subscribe', message.failure));
        break;
      case 'event':
        subscription.listener.event(message.raw);
        break;
      case 'lost':
        subscription.listener.lost();
        break;
      case 'unsubscribed':
        this.#subscriptions.delete(message.id);
        this.#answered();
        subscription.unsubscribed?.();
        break;
    }
  }
}

let loop: EventLoop | undefined;

/** Starts the event loop if this process has none yet. Must have resolved before any connection is opened. */
export async function startEventLoop(): Promise<void> {
  loop ??= new EventLoop();
  await loop.ready;
}

/** Rejects with `LibvirtError` if the daemon cannot be reached. */
export async function subscribe(uri: string, listener: EventListener): Promise<Unsubscribe> {
  await startEventLoop();
  return (loop as EventLoop).subscribe(uri, listener);
}
