import { CallLane } from './call-lane.js';
import type { Arguments, Calls, Operation } from './calls.js';
import { startEventLoop } from './event-loop.js';
import { connectionClosed } from './libvirt-error.js';

type Lane = 'control' | 'query' | 'emulator' | 'disk' | 'slow' | 'dump';

/**
 * Within a lane calls wait for each other. So what must never wait, a takeover's resume, has one of its own: even a
 * question takes seconds if it concerns a guest that libvirt is just cleaning up after.
 */
const laneOf: Record<Operation, Lane> = {
  suspend: 'control',
  resume: 'control',
  state: 'query',
  exists: 'query',
  list: 'query',
  vcpuTimeNs: 'query',
  roundTrip: 'emulator',
  attach: 'disk',
  describe: 'disk',
  define: 'slow',
  start: 'slow',
  destroy: 'slow',
  undefine: 'slow',
  dump: 'dump',
};

/** A daemon that answers nothing for 3 x 3 s counts as dead, and calls that wait for it fail. */
const keepAlive = { intervalS: 3, count: 3 };

/** Calls into one libvirt daemon. Reconnects by itself: a lane whose connection died opens a new one for the next call. */
export class LibvirtConnection {
  readonly #lanes = new Map<Lane, CallLane>();
  #closed = false;

  private constructor(readonly uri: string) {}

  /** Opens the lanes for control and questions, and makes the daemon answer once. Rejects with `LibvirtError`. */
  static async open(uri: string): Promise<LibvirtConnection> {
    // libvirt takes an event loop only before the first connection of the process, and keep-alive needs one.
    await startEventLoop();
    const connection = new LibvirtConnection(uri);
    try {
      // A lane takes 30 ms to start: not when the first takeover needs it.
      connection.#lane('control');
      await connection.call('list');
    } catch (error) {
      await connection.close();
      throw error;
    }
    return connection;
  }

  /** Rejects with `LibvirtError`. */
  call<O extends Operation>(operation: O, ...args: Arguments<O>): Promise<ReturnType<Calls[O]>> {
    if (this.#closed) return Promise.reject(connectionClosed(operation));
    return this.#lane(laneOf[operation]).call(operation, ...args);
  }

  #lane(name: Lane): CallLane {
    let lane = this.#lanes.get(name);
    if (!lane) {
      lane = new CallLane(this.uri, keepAlive);
      this.#lanes.set(name, lane);
    }
    return lane;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const lanes = [...this.#lanes.values()];
    this.#lanes.clear();
    await Promise.all(lanes.map(lane => lane.close()));
  }
}
