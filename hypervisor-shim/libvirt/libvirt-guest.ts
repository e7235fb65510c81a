import { readFileSync } from 'node:fs';
import { HoldfastError } from '../errors.js';
import type { DataDisk, Guest, GuestState } from '../hypervisor.js';
import type { Arguments, Calls, Operation } from './calls.js';
import { dataDiskXml, hasDataDisk } from './domain-xml.js';
import { watchProcess } from './pidfd.js';

/** What a killed QEMU may take to end, ms: memory of many GiB is given back slowly. */
const KILL_MS = 20_000;

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

  async kill(): Promise<void> {
    this.#host.expectEnd(this.name);
    const pid = await this.#host.pidOf(this.name);
    if (pid === undefined || isAnother(pid, this.name)) return;
    // The whole process: its first thread may be gone while another still writes.
    const ended = new Promise<boolean>(resolve => {
      const stop = watchProcess(pid, () => resolve(true));
      if (!stop) return resolve(true);
      process.kill(pid, 'SIGKILL');
      setTimeout(() => {
        stop();
        resolve(false);
      }, KILL_MS).unref();
    });
    if (await ended) return;
    throw new HoldfastError(
      'HF_GUEST_ALIVE',
      `QEMU of ${this.name} (pid ${pid}) does not end: it hangs in the kernel`,
      `Find what it waits for (/proc/${pid}/stack), most likely the storage below its disks.`,
    );
  }

  attachDisk(disk: DataDisk): Promise<void> {
    return this.#host.call('attach', this.name, dataDiskXml(disk));
  }

  async hasDataDisk(): Promise<boolean> {
    return hasDataDisk(await this.#host.call('describe', this.name));
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

  roundTrip(): Promise<void> {
    return this.#host.call('roundTrip', this.name);
  }

  /** Resolution 10 ms (scheduler ticks). */
  vcpuTimeNs(): Promise<bigint> {
    return this.#host.call('vcpuTimeNs', this.name);
  }

  pid(): Promise<number | undefined> {
    return this.#host.pidOf(this.name);
  }
}

/** Pids are used again, and libvirt's pid file may outlive its process. Of one that is ending the words are gone already. */
function isAnother(pid: number, name: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    return words !== '' && !words.includes(`guest=${name},`);
  } catch {
    return true;
  }
}
