import type { Guest, GuestState } from '../hypervisor.js';
import type { Arguments, Calls, Operation } from './calls.js';

/** What a guest needs of its hypervisor. */
export interface GuestHost {
  call<O extends Operation>(operation: O, ...args: Arguments<O>): Promise<ReturnType<Calls[O]>>;
  /** The guest's end is now asked for: its process ending is no fault. */
  expectEnd(name: string): () => void;
  pidOf(name: string): Promise<number | undefined>;
}

/** A libvirt domain. Holds no handle of libvirt's, so it survives the daemon. */
export class LibvirtGuest implements Guest {
  readonly #host: GuestHost;

  constructor(
    host: GuestHost,
    readonly name: string,
  ) {
    this.#host = host;
  }

  start(options: { paused?: boolean } = {}): Promise<void> {
    return this.#host.call('start', this.name, options.paused ?? false);
  }

  /** No error if it is paused already. */
  suspend(): Promise<void> {
    return this.#host.call('suspend', this.name);
  }

  /** No error if it runs already. */
  resume(): Promise<void> {
    return this.#host.call('resume', this.name);
  }

  async destroy(): Promise<void> {
    const notExpected = this.#host.expectEnd(this.name);
    try {
      await this.#host.call('destroy', this.name);
    } catch (error) {
      notExpected();
      throw error;
    }
  }

  undefine(): Promise<void> {
    return this.#host.call('undefine', this.name);
  }

  /** A guest that runs is paused meanwhile. `file` must not lie below /run/libvirt, /var/lib/libvirt or the like. */
  dump(file: string): Promise<void> {
    return this.#host.call('dump', this.name, file);
  }

  state(): Promise<GuestState> {
    return this.#host.call('state', this.name);
  }

  /** Resolution 10 ms (scheduler ticks). */
  vcpuTimeNs(): Promise<bigint> {
    return this.#host.call('vcpuTimeNs', this.name);
  }

  pid(): Promise<number | undefined> {
    return this.#host.pidOf(this.name);
  }
}
