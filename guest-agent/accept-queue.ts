import { type Listener, listeners, unaccepted } from './listeners.js';
import type { ControlPage } from './page.js';
import type { ServiceSpec } from './services.js';
import { hostWord } from './words.js';

const LOOK_MS = 1000;

/** `detect.acceptQueueMs` of the configuration: the host says that it has a value. */
export const isWantedByHost = (): boolean => hostWord('accept-queues') !== undefined;

/** Tells on the page, once a second, how many connections of each service wait to be accepted, and whether any was meanwhile. */
export function watchAcceptQueues(page: ControlPage, specs: readonly Pick<ServiceSpec, 'ports'>[]): void {
  const watched = specs.flatMap((spec, index) => {
    const words = page.service(index);
    return words === undefined ? [] : [{ words, queue: new AcceptQueue(spec.ports) }];
  });
  const look = async () => {
    const present = listeners();
    for (const { words, queue } of watched) {
      const hasAccepted = await queue.look(present);
      words.queue(queue.length, hasAccepted);
    }
    setTimeout(look, LOOK_MS);
  };
  setTimeout(look, LOOK_MS);
}

/**
 * The accept queues of one service. Its length alone does not tell a server that accepts nothing from one that accepts as fast as
 * clients come; so while it is not empty, and has not become shorter, the connections in it are looked at themselves. One that its client
 * has reset is missing as if it had been accepted: that makes a verdict late, never wrong.
 */
export class AcceptQueue {
  length = 0;
  readonly #ports: ReadonlySet<number>;
  #waiting = new Set<string>();

  constructor(
    ports: readonly number[],
    private readonly find: (ports: ReadonlySet<number>) => Promise<Set<string>> = unaccepted,
  ) {
    this.#ports = new Set(ports);
  }

  /** Whether the service may have accepted something since the last look. */
  async look(present: readonly Listener[]): Promise<boolean> {
    const before = this.length;
    this.length = present.reduce((sum, { port, queued }) => sum + (this.#ports.has(port) ? queued : 0), 0);
    if (this.length === 0) {
      this.#waiting.clear();
      return true;
    }
    const waiting = await this.find(this.#ports);
    const isMissing = [...this.#waiting].some(connection => !waiting.has(connection));
    const isNew = this.#waiting.size === 0 || this.length < before;
    // Those of the last look that are still there: the first in the queue is among them, or it was accepted.
    if (!isNew && !isMissing) return false;
    this.#waiting = waiting;
    return true;
  }
}
