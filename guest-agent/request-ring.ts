import * as wire from './wire/control-page.js';

const { entries, entryBytes, textBytes } = wire.ring;
const place = (base: number, id: number): number => base + (((id - 1) >>> 0) % entries) * entryBytes;

/** The guest's side of the rings on the control page: at most as many requests as a ring has places wait for their answer. */
export class RequestRing {
  readonly #u32: Uint32Array;
  readonly #bytes: Uint8Array;

  constructor(page: ArrayBuffer) {
    this.#u32 = new Uint32Array(page);
    this.#bytes = new Uint8Array(page);
  }

  get isFull(): boolean {
    return (this.#load(wire.guest.requested) - this.#load(wire.host.answered)) >>> 0 >= entries;
  }

  /** Gives the request's number. */
  ask(text: string): number {
    const id = (this.#load(wire.guest.requested) + 1) >>> 0;
    const at = place(wire.ring.requests, id);
    const bytes = Buffer.from(text, 'latin1').subarray(0, textBytes);
    this.#bytes.set(bytes, at + 4);
    Atomics.store(this.#u32, at / 4, bytes.length);
    Atomics.store(this.#u32, wire.guest.requested.offset / 4, id);
    return id;
  }

  /** Undefined until the host has answered it. */
  answer(id: number): string | undefined {
    const behind = (this.#load(wire.host.answered) - id) | 0;
    if (behind < 0) return undefined;
    const at = place(wire.ring.answers, id);
    const length = Math.min(Atomics.load(this.#u32, at / 4), textBytes);
    return Buffer.from(this.#bytes.slice(at + 4, at + 4 + length)).toString('latin1');
  }

  #load(field: wire.Field): number {
    return Atomics.load(this.#u32, field.offset / 4);
  }
}
