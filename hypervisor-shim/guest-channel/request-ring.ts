import * as wire from '../../guest-agent/wire/control-page.js';
import type { GuestRequest, GuestRequests } from './guest-channel.js';

const { entries, entryBytes, textBytes } = wire.ring;
const place = (base: number, id: number): number => base + (((id - 1) >>> 0) % entries) * entryBytes;

/**
 * Host side of the rings on a control page. Which requests have their answer stands on the page, so that a successor goes on there; a
 * guest that scribbles on it, or on what it has asked, confuses itself.
 */
export class RequestRing implements GuestRequests {
  readonly #u32: Uint32Array;
  readonly #bytes: Uint8Array;

  constructor(page: ArrayBuffer) {
    this.#u32 = new Uint32Array(page);
    this.#bytes = new Uint8Array(page);
  }

  next(): GuestRequest | undefined {
    const requested = this.#load(wire.guest.requested);
    const answered = this.#load(wire.host.answered);
    const waiting = (requested - answered) >>> 0;
    if (waiting === 0) return undefined;
    const skipped = Math.max(0, waiting - entries);
    if (skipped > 0) this.#store(wire.host.answered, (answered + skipped) >>> 0);
    const id = (answered + skipped + 1) >>> 0;
    const at = place(wire.ring.requests, id);
    const length = Math.min(Atomics.load(this.#u32, at / 4), textBytes);
    // Copied once: what is checked is what is carried out, whatever the guest writes meanwhile.
    return { id, bytes: this.#bytes.slice(at + 4, at + 4 + length), skipped };
  }

  answer(text: string): void {
    const id = (this.#load(wire.host.answered) + 1) >>> 0;
    const at = place(wire.ring.answers, id);
    const bytes = Buffer.from(text.replace(/[^ -~]/g, '?').slice(0, textBytes), 'latin1');
    this.#bytes.set(bytes, at + 4);
    Atomics.store(this.#u32, at / 4, bytes.length);
    this.#store(wire.host.answered, id);
  }

  #load(field: wire.Field): number {
    return Atomics.load(this.#u32, field.offset / 4);
  }

  #store(field: wire.Field, value: number): void {
    Atomics.store(this.#u32, field.offset / 4, value);
  }
}
