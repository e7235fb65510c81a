import { LibvirtHypervisor } from '../hypervisor-shim/libvirt/libvirt-hypervisor.js';
import { savedServices } from './service/state-file.js';

interface Shared {
  hypervisor: Promise<LibvirtHypervisor>;
  users: number;
}

/** One connection for all services of one libvirt. A private libvirtd ends with the last service of the state directory. */
export class Hypervisors {
  readonly #shared = new Map<string, Shared>();
  #ending: Promise<void> = Promise.resolve();

  constructor(private readonly stateDir: string) {}

  /** `kernel` is what an accelerator that nobody has tried yet is tried with. Pair it with `release`. */
  async acquire(uri: string | undefined, kernel: string | undefined): Promise<LibvirtHypervisor> {
    const key = uri ?? '';
    await this.#ending;
    let shared = this.#shared.get(key);
    if (!shared) {
      const { stateDir } = this;
      const hypervisor = LibvirtHypervisor.connect({
        stateDir,
        ...(uri !== undefined && { uri }),
        ...(kernel !== undefined && { trial: { kernel } }),
      });
      shared = { hypervisor, users: 0 };
      this.#shared.set(key, shared);
    }
    shared.users++;
    try {
      return await shared.hypervisor;
    } catch (error) {
      if (this.#shared.get(key) === shared) this.#shared.delete(key);
      throw error;
    }
  }

  async release(uri: string | undefined): Promise<void> {
    const key = uri ?? '';
    const shared = this.#shared.get(key);
    if (!shared || --shared.users > 0) return;
    this.#shared.delete(key);
    // Its end is the end of all its guests: also of those of services that wait for their adoption.
    const last = savedServices(this.stateDir).length === 0;
    const ended = shared.hypervisor.then(hypervisor => (last ? hypervisor.stop() : hypervisor.close()));
    this.#ending = ended.catch(() => {});
    await ended;
  }

  /** Lets go of all; guests and private daemon go on. */
  async close(): Promise<void> {
    const all = [...this.#shared.values()];
    this.#shared.clear();
    await Promise.allSettled(all.map(async ({ hypervisor }) => (await hypervisor).close()));
  }
}
