import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PAGE_BYTES } from '../../guest-agent/wire/control-page.js';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { IvshmemChannel } from '../../hypervisor-shim/guest-channel/ivshmem.js';
import type { GuestSpec, Hypervisor } from '../../hypervisor-shim/hypervisor.js';
import { native } from '../../hypervisor-shim/native/native.js';
import type { ServiceConfig } from '../config/config.js';
import { GuestVm, OWN_BOOT_MS } from './guest.js';
import type { Image } from './image.js';
import { type ServiceNames, SHM, SLOTS } from './names.js';
import { managementAddress, type ServiceNetwork, type SlotNetwork, slotHost } from './network.js';
import type { ServiceFiles } from './state-file.js';

/** Makes the guests of one service: overlay disk, control page, taps and definition; and takes them apart. */
export class GuestMaker {
  constructor(
    private readonly hypervisor: Hypervisor,
    private readonly config: ServiceConfig,
    private readonly names: ServiceNames,
    private readonly files: ServiceFiles,
    readonly image: Image,
    private readonly network: ServiceNetwork,
  ) {}

  /** Of the guest in `slot`, with prefix: there it is reached whether it is active or not. */
  managementAddress(slot: number): string {
    return managementAddress(this.config, slotHost(slot));
  }

  /** Defines the `generation`th guest in `slot`; it is off. */
  async make(generation: number, slot: number): Promise<GuestVm> {
    const name = this.names.guest(generation);
    makeDirectories(this.files.directory);
    try {
      const disk = await this.#overlay(name);
      const channel = new IvshmemChannel(native.mapFile(pagePath(this.names, name), PAGE_BYTES));
      channel.reset();
      const nics = await this.network.addSlot(slot);
      const { memoryMiB, vcpus } = this.config.guest;
      const serialLog = this.#path(name, 'console.log');
      const machine = await this.hypervisor.define({
        name,
        memoryMiB,
        vcpus,
        ...this.#boot(this.#words(name, nics)),
        disks: [{ path: disk, format: 'qcow2' }],
        nics: [
          { tap: nics.tap, mac: nics.mac },
          { tap: nics.managementTap, mac: nics.managementMac },
        ],
        takesDataDisk: this.config.storage.mode === 'handed-over',
        ...(this.config.storage.mode === 'shared' && { sharedDirectory: this.config.storage.directory }),
        controlPage: { shm: this.names.page(name), bytes: PAGE_BYTES },
        serialLog,
      });
      const bootMs = this.image.boot ? undefined : OWN_BOOT_MS;
      return new GuestVm(name, slot, nics.ifindex, machine, channel, serialLog, disk, bootMs);
    } catch (error) {
      await this.#removeTraces(name, slot);
      throw error;
    }
  }

  /** The guest that a supervisor made before, however it fares; undefined if the hypervisor does not know it. */
  async adopt(name: string, slot: number): Promise<GuestVm | undefined> {
    const machine = await this.hypervisor.lookup(name);
    if (!machine) return undefined;
    const channel = new IvshmemChannel(native.mapFile(pagePath(this.names, name), PAGE_BYTES));
    const ifindex = await this.network.slotIfindex(slot);
    const files = [this.#path(name, 'console.log'), this.#path(name, 'qcow2')] as const;
    return new GuestVm(name, slot, ifindex, machine, channel, ...files);
  }

  /** Removes what was being made or removed when the supervisor died: guests and slots other than these. */
  async sweep(known: readonly GuestVm[]): Promise<void> {
    const names = new Set(known.map(guest => guest.name));
    for (const name of await this.hypervisor.list()) {
      if (!this.names.isGuest(name) || names.has(name)) continue;
      const machine = await this.hypervisor.lookup(name);
      await machine?.destroy();
      await machine?.undefine();
      this.#removeFiles(name);
    }
    for (const slot of SLOTS) {
      if (!known.some(guest => guest.slot === slot)) await this.network.removeSlot(slot);
    }
  }

  /** Removes a guest and all that was made for it, its console included. */
  async unmake(guest: GuestVm): Promise<void> {
    await guest.remove();
    await this.#removeTraces(guest.name, guest.slot);
  }

  async #removeTraces(name: string, slot: number): Promise<void> {
    this.#removeFiles(name);
    await this.network.removeSlot(slot);
  }

  #removeFiles(name: string): void {
    for (const path of [
      this.#path(name, 'qcow2'),
      this.#path(name, 'console.log'),
      pagePath(this.names, name),
    ]) {
      rmSync(path, { force: true });
    }
  }

  #path(name: string, kind: string): string {
    return join(this.files.directory, `${name}.${kind}`);
  }

  async #overlay(name: string): Promise<string> {
    const path = this.#path(name, 'qcow2');
    const { path: root, format } = this.image.root;
    const base = ['-f', 'qcow2', '-F', format, '-b', root];
    try {
      await promisify(execFile)('qemu-img', ['create', '-q', ...base, path]);
    } catch (cause) {
      const said = (cause as { stderr?: string }).stderr?.trim() || String(cause);
      throw new HoldfastError(
        'HF_GUEST_DISK',
        `cannot make the disk of ${name}: ${said}`,
        'Install qemu-utils, and see that the state directory has room.',
        { cause },
      );
    }
    return path;
  }

  /** Words reach an appliance on its command line, and a disk with a boot loader of its own past that. */
  #boot(words: string[]): Pick<GuestSpec, 'boot' | 'oemStrings'> {
    const { boot } = this.image;
    if (boot === undefined) return { oemStrings: words };
    return { boot: { ...boot, cmdline: [boot.cmdline, ...words].join(' ') } };
  }

  #words(name: string, nics: SlotNetwork): string[] {
    const { address, gateway, address6, gateway6, storage, ports, detect } = this.config;
    const words = [`service=${address}`, `mgmt=${nics.managementAddress}`, `name=${name}`, `ports=${ports}`];
    if (gateway !== undefined) words.push(`gateway=${gateway}`);
    if (address6 !== undefined) words.push(`service6=${address6}`);
    if (gateway6 !== undefined) words.push(`gateway6=${gateway6}`);
    if (storage.mode !== 'none') words.push(`storage=${storage.mode}:${storage.mount}`);
    if (detect.acceptQueueMs !== undefined) words.push('accept-queues');
    return words.map(word => `holdfast.${word}`);
  }
}

const pagePath = (names: ServiceNames, guest: string): string => join(SHM, names.page(guest));
