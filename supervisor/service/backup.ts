import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { BackupCommand, BackupStatus } from '../api/types.js';
import { now } from '../clock.js';
import { isHostOf, parseCidr } from '../config/cidr.js';
import { DRAIN_MS } from '../migration/limits.js';
import { beginMigration } from '../migration/migration.js';
import type { GuestVm } from './guest.js';
import { SLOTS } from './names.js';
import { slotHost } from './network.js';
import type { Protection } from './protection.js';

/** What a boot may take, with another one before it that fails, ms. */
const READY_MS = 300_000;
const POLL_MS = 50;
/** What the agent may take to change an address, ms. */
const ADDRESS_MS = 10_000;

/**
 * The operations on a backup (the paper's sys_boot_backup_server, suspend, wakeup, change_backup_ip, migrate_service), for an operator
 * and for guests that were granted them. Booting and suspending is the upkeep's work anyway; these say what is wanted, and wait.
 */
export class Backup {
  constructor(private readonly p: Protection) {}

  /** Resolves with how the backup is when it is done. Throws `HF_BACKUP_...`, `HF_SERVICE_BUSY`. */
  async command({ operation, address, fresh }: BackupCommand): Promise<BackupStatus> {
    switch (operation) {
      case 'boot':
        await this.#boot(fresh ?? false);
        break;
      case 'suspend':
        await this.#suspend();
        break;
      case 'wake':
        await this.#wake();
        break;
      case 'address':
        await this.#address(address);
        break;
      case 'migrate':
        // The guest that asks is the one that is left: it hears that it has begun, not how it ends.
        beginMigration(this.p, { drainMs: DRAIN_MS, policy: 'replay' });
        break;
      case 'status':
    }
    return this.status();
  }

  async status(): Promise<BackupStatus> {
    const { p } = this;
    const guest = p.backup ?? (p.primary ? p.booting : undefined);
    const common = { service: p.config.name, phase: p.phase, reason: p.reason };
    if (!guest) return { ...common, awake: false };
    const { name, state, vcpuMs, residentBytes } = await guest.status('backup');
    const addresses = {
      managementAddress: p.maker.managementAddress(guest.slot),
      furtherAddress: guest.furtherAddress,
    };
    return { ...common, guest: name, state, awake: guest.isAwake, vcpuMs, residentBytes, ...addresses };
  }

  async #boot(fresh: boolean): Promise<void> {
    const { p } = this;
    this.#calm();
    const old = p.backup;
    if (fresh && old) p.replaceBackup(old);
    await this.#until(
      'is ready',
      () => p.backup !== undefined && p.backup !== (fresh ? old : undefined) && isReady(p.backup),
    );
  }

  async #suspend(): Promise<void> {
    const { p } = this;
    this.#calm();
    this.#there().isAwake = false;
    p.wake();
    await this.#until('is suspended', () => p.backup?.state === 'suspended');
  }

  async #wake(): Promise<void> {
    this.#calm();
    const backup = this.#there();
    if (backup.isAwake) return;
    if (backup.state !== 'suspended') throw this.#busy();
    await backup.rouse();
    this.p.say('guest.awake', `${backup.name} is awake, for maintenance`, { guest: backup.name });
  }

  async #address(given: string | undefined): Promise<void> {
    const { p } = this;
    const cidr = parseCidr(given ?? '');
    const subnet = parseCidr(p.config.management.subnet)!;
    const taken = [1, ...SLOTS.map(slotHost)].map(host => subnet.network + host);
    if (
      !cidr ||
      cidr.prefix !== subnet.prefix ||
      !isHostOf(subnet, cidr.address) ||
      taken.includes(cidr.address)
    ) {
      throw new HoldfastError(
        'HF_BACKUP_ADDRESS',
        `the address is ${given ?? 'missing'}, expected a free host address of the management network ${p.config.management.subnet}`,
        `Give one with the prefix /${subnet.prefix} that neither this host nor a guest has.`,
      );
    }
    this.#calm();
    const backup = this.#there();
    if (!backup.isAwake) {
      throw new HoldfastError(
        'HF_BACKUP_SUSPENDED',
        `${backup.name} is suspended and cannot change its address`,
        'Wake it first (`backup wake`), and suspend it afterwards.',
      );
    }
    backup.channel.setAddress(cidr.address, cidr.prefix);
    await this.#until('has its address', () => backup.channel.addressTaken !== undefined, ADDRESS_MS);
    if (backup.channel.addressTaken !== true) {
      throw new HoldfastError(
        'HF_BACKUP_FAILED',
        `${backup.name} could not take the address ${given}`,
        `Its console, ${backup.serialLog}, says why.`,
      );
    }
    backup.furtherAddress = given;
    p.say('guest.address', `${backup.name} has the further address ${given}`, {
      guest: backup.name,
      address: given,
    });
  }

  /** Nothing is changed in the midst of a recovery. */
  #calm(): void {
    const { p } = this;
    p.stopped.throwIfAborted();
    if (p.fault || p.migration || p.replaying || p.phase === 'recovering' || p.phase === 'starting')
      throw this.#busy();
  }

  #there(): GuestVm {
    const { backup, config } = this.p;
    if (backup) return backup;
    throw new HoldfastError(
      'HF_BACKUP_MISSING',
      `${config.name} has no backup now`,
      'Wait until it has booted (`backup boot` does).',
    );
  }

  #busy(): HoldfastError {
    const { name } = this.p.config;
    return new HoldfastError(
      'HF_SERVICE_BUSY',
      `${name} is starting, recovering or migrating, or its backup is not yet ready`,
      `Wait until \`holdfast status ${name}\` says protected.`,
    );
  }

  async #until(what: string, is: () => boolean, patienceMs = READY_MS): Promise<void> {
    const { p } = this;
    for (const deadline = now() + patienceMs; !is(); await sleep(POLL_MS)) {
      p.stopped.throwIfAborted();
      if (p.fault) throw this.#busy();
      if (now() < deadline) continue;
      const why = p.reason === undefined ? '' : `: ${p.reason}`;
      throw new HoldfastError(
        'HF_BACKUP_FAILED',
        `no backup of ${p.config.name} ${what} after ${patienceMs / 1000} s${why}`,
        `Look at \`holdfast events\` for what hinders it.`,
      );
    }
  }
}

const isReady = ({ state, isAwake }: GuestVm): boolean => state === 'suspended' || isAwake;
