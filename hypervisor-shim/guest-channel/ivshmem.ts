import * as wire from '../../guest-agent/wire/control-page.js';
import { type CrashList, readCrash } from './crash-list.js';
import type { GuestChannel, GuestReport } from './guest-channel.js';
import { RequestRing } from './request-ring.js';
import { readServiceWords, type ServiceWord } from './service-words.js';

/** How often a read that met a writer is tried again before the last consistent report is given instead. */
const ATTEMPTS = 16;

type Body = Pick<GuestReport, 'bootId' | 'application' | 'pid' | 'exitStatus'>;

const NO_CRASHES: CrashList = { crashes: [], overflow: false };
const NOTHING: Body = { bootId: undefined, application: 'unknown', pid: 0, exitStatus: 0 };

/**
 * Host side of the control page (ivshmem-plain BAR 2), over a shared mapping of the file in /dev/shm.
 * A page that a supervisor initialised before is adopted as it is, so that its successor does not disturb the guest;
 * call `reset` before a guest boots on it.
 */
export class IvshmemChannel implements GuestChannel {
  readonly #u32: Uint32Array;
  readonly #u64: BigUint64Array;
  readonly #view: DataView;
  #last: Body = NOTHING;
  readonly requests: RequestRing;

  constructor(page: ArrayBuffer) {
    if (page.byteLength < wire.PAGE_BYTES) throw new RangeError(`control page of ${page.byteLength} bytes`);
    this.#u32 = new Uint32Array(page);
    this.#u64 = new BigUint64Array(page);
    this.requests = new RequestRing(page);
    this.#view = new DataView(page);
    const { magic, version } = wire.host;
    if (this.#load(magic) !== wire.HOST_MAGIC || this.#load(version) !== wire.PAGE_VERSION) this.reset();
  }

  /** Empties both halves. Only while no guest runs on the page. */
  reset(): void {
    this.#u32.fill(0, 0, wire.rings.offset / 4);
    this.#last = NOTHING;
    this.#store(wire.host.version, wire.PAGE_VERSION);
    this.#store(wire.host.magic, wire.HOST_MAGIC);
  }

  read(): GuestReport {
    const { guest } = wire;
    if (this.#load(guest.magic) !== wire.GUEST_MAGIC || this.#load(guest.version) !== wire.PAGE_VERSION) {
      return { heartbeat: 0n, userHeartbeat: 0n, heartStarts: 0, agentStarts: 0, epoch: 0, ...NOTHING };
    }
    return {
      heartbeat: Atomics.load(this.#u64, guest.heartbeat.offset / 8),
      userHeartbeat: Atomics.load(this.#u64, guest.userHeartbeat.offset / 8),
      heartStarts: this.#load(guest.heartStarts),
      agentStarts: this.#load(guest.agentStarts),
      epoch: this.#load(guest.epochEcho),
      ...this.#readBody(),
    };
  }

  services(count: number): ServiceWord[] {
    return readServiceWords(this.#u32, this.#u64, count);
  }

  /**
   * Call it right before the guest is resumed: the guest takes `wallClockNs` as the time at which it reads it.
   * The same epoch again changes nothing in the guest.
   */
  activate(epoch: number, wallClockNs: bigint): void {
    const seq = wire.host.activationSeq;
    const odd = this.#load(seq) | 1;
    this.#store(seq, odd);
    this.#store(wire.host.epoch, epoch);
    Atomics.store(this.#u64, wire.host.wallClockNs.offset / 8, wallClockNs);
    this.#store(seq, odd + 1);
  }

  /** Right before a guest is resumed that is not to be active: as `activate`, in the epoch that it had. */
  setClock(wallClockNs: bigint): void {
    this.activate(this.#load(wire.host.epoch), wallClockNs);
  }

  /** Tells the guest which further address its management NIC is to have; `addressTaken` says when it has. */
  setAddress(address: number, prefix: number): void {
    this.#store(wire.host.address, address);
    this.#store(wire.host.prefix, prefix);
    Atomics.add(this.#u32, wire.host.addressId.offset / 4, 1);
  }

  /** Whether the guest has done what `setAddress` last said; undefined until it has tried. */
  get addressTaken(): boolean | undefined {
    const { addressEcho, addressFailed } = wire.guest;
    if (this.#load(addressEcho) !== this.#load(wire.host.addressId)) return undefined;
    return this.#load(addressFailed) === 0;
  }

  acknowledgeStop(): void {
    this.#store(wire.host.stopAck, 1);
  }

  takeCrashes(): CrashList {
    const head = Atomics.load(this.#u64, wire.guest.crashHead.offset / 8);
    const tail = this.#u64[wire.host.crashTail.offset / 8]!;
    if (head === tail) return NO_CRASHES;
    Atomics.store(this.#u64, wire.host.crashTail.offset / 8, head);
    const count = BigInt.asUintN(64, head - tail);
    const { offset, entryBytes } = wire.crashes;
    const room = BigInt(wire.crashes.count);
    if (count > room) return { crashes: [], overflow: true };
    const list: CrashList = { crashes: [], overflow: false };
    for (let n = tail; n !== head; n = BigInt.asUintN(64, n + 1n)) {
      const crash = readCrash(this.#view, offset + Number(n % room) * entryBytes);
      if (crash) list.crashes.push(crash);
    }
    return list;
  }

  /** The guest's heart carries it out within a beat, or passes it on to the agent. */
  sendCommand(name: wire.CommandName): void {
    this.#store(wire.host.command, wire.command[name]);
    Atomics.add(this.#u32, wire.host.commandId.offset / 4, 1);
  }

  /** The mapping itself goes with its last reference. */
  close(): void {}

  /** A guest that keeps the lock odd for ever gets its last consistent report repeated. */
  #readBody(): Body {
    const { guest } = wire;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const before = this.#load(guest.reportSeq);
      if (before & 1) continue;
      const body: Body = {
        bootId: this.#bootId(),
        application: wire.APPLICATION_STATES[this.#load(guest.application)] ?? 'unknown',
        pid: this.#load(guest.pid),
        exitStatus: this.#load(guest.exitStatus),
      };
      if (this.#load(guest.reportSeq) !== before) continue;
      this.#last = body;
      break;
    }
    return this.#last;
  }

  #bootId(): string | undefined {
    const words = Buffer.alloc(16);
    for (let i = 0; i < 4; i++) {
      words.writeUInt32LE(Atomics.load(this.#u32, wire.guest.bootId.offset / 4 + i), 4 * i);
    }
    const hex = words.toString('hex');
    if (/^0+$/.test(hex)) return undefined;
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  }

  #load(field: wire.Field): number {
    return Atomics.load(this.#u32, field.offset / 4);
  }

  #store(field: wire.Field, value: number): void {
    Atomics.store(this.#u32, field.offset / 4, value);
  }
}
