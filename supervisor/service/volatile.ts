import { statSync } from 'node:fs';
import type { GuestVm } from './guest.js';
import type { Protection } from './protection.js';

const PERIOD_MS = 1000;
/**
 * Growth of a guest's overlay, from the moment it is active on, that counts as a service that writes: what is left to write back of
 * a boot stays far below (measured, see ARCHITECTURE), and a service that keeps anything comes here soon.
 */
const LIMIT = 1 << 20;

/**
 * With `storage: none`, says it once of each guest when a service writes to a disk that dies with it. Looks at the overlay's size: it
 * asks neither the hypervisor nor the guest, and each place counts once, however often it is written.
 */
export class VolatileWatch {
  #timer: NodeJS.Timeout | undefined;
  #guest: GuestVm | undefined;
  #before = 0;
  #written = 0;
  #told = false;

  constructor(private readonly p: Protection) {}

  start(): void {
    if (this.p.config.storage.mode !== 'none') return;
    this.#timer = setInterval(() => this.#look(), PERIOD_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Bytes by which the active guest's overlay has grown since it is active. */
  get written(): number {
    return this.#written;
  }

  #look(): void {
    const { p } = this;
    const guest = p.primary;
    if (guest?.state !== 'active') return;
    const bytes = allocated(guest.overlay);
    if (bytes === undefined) return;
    if (guest !== this.#guest) {
      this.#guest = guest;
      this.#before = bytes;
      this.#told = false;
    }
    this.#written = Math.max(0, bytes - this.#before);
    if (this.#told || this.#written < LIMIT) return;
    this.#told = true;
    const mib = (this.#written / (1 << 20)).toFixed(1);
    p.say(
      'storage.volatile',
      `${guest.name} has written ${mib} MiB to its own disk, which dies with it: set \`storage\` for what must last`,
      { guest: guest.name, bytes: this.#written },
    );
  }
}

function allocated(file: string): number | undefined {
  const found = statSync(file, { throwIfNoEntry: false });
  return found && found.blocks * 512;
}
