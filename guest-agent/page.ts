import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { keepHeart } from './heart.js';
import { loadAddon } from './native/native.js';
import * as wire from './wire/control-page.js';

const PCI = '/sys/bus/pci/devices';

export interface Report {
  application: wire.ApplicationState;
  pid: number;
  exitStatus: number;
}

/** The guest's side of the control page. */
export class ControlPage {
  readonly #u32: Uint32Array;
  readonly #u64: BigUint64Array;

  /** What an agent that ended said last, in this boot of the machine: it still holds, until it is known better. */
  earlier: wire.ApplicationState | undefined;

  constructor(readonly buffer: ArrayBuffer) {
    this.#u32 = new Uint32Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
  }

  /** Maps the first ivshmem device and sees to the heartbeat; undefined where there is no such device. */
  static open(): ControlPage | undefined {
    const path = findIvshmem();
    if (path === undefined) return undefined;
    const page = new ControlPage(loadAddon().mapPage(path, statSync(path).size));
    page.#publishIdentity();
    keepHeart(path);
    return page;
  }

  beat(): void {
    Atomics.add(this.#u64, wire.guest.userHeartbeat.offset / 8, 1n);
  }

  report(report: Report): void {
    this.#locked(() => {
      this.#store(wire.guest.application, wire.APPLICATION_STATES.indexOf(report.application));
      this.#store(wire.guest.pid, report.pid);
      this.#store(wire.guest.exitStatus, report.exitStatus);
    });
  }

  /** Whether the host has made this guest the active one; it may have revoked that since. */
  get wasActivated(): boolean {
    return Atomics.load(this.#u32, wire.host.epoch.offset / 4) !== 0;
  }

  /** What is told of service number `index`; a page has room for some only. */
  service(index: number): ServiceWords | undefined {
    const { offset, count, entryBytes } = wire.services;
    return index < count ? new ServiceWords(this.buffer, offset + index * entryBytes) : undefined;
  }

  /** Whether the host has cut this guest off, after `stopping` was reported. */
  get stopAcknowledged(): boolean {
    return Atomics.load(this.#u32, wire.host.stopAck.offset / 4) === 1;
  }

  #publishIdentity(): void {
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim().replaceAll('-', '');
    const bytes = Buffer.from(bootId, 'hex');
    const words = [0, 1, 2, 3].map(i => bytes.readUInt32LE(4 * i));
    const place = wire.guest.bootId.offset / 4;
    if (words.every((word, i) => Atomics.load(this.#u32, place + i) === word)) {
      this.earlier = wire.APPLICATION_STATES[Atomics.load(this.#u32, wire.guest.application.offset / 4)];
    } else {
      this.#locked(() => {
        for (const [i, word] of words.entries()) Atomics.store(this.#u32, place + i, word);
        this.#store(wire.guest.application, wire.APPLICATION_STATES.indexOf('starting'));
      });
    }
    Atomics.add(this.#u32, wire.guest.agentStarts.offset / 4, 1);
    this.#store(wire.guest.version, wire.PAGE_VERSION);
    this.#store(wire.guest.magic, wire.GUEST_MAGIC);
  }

  /** An earlier agent may have died inside: whatever it left, odd means being written and even means done. */
  #locked(write: () => void): void {
    const index = wire.guest.reportSeq.offset / 4;
    const odd = Atomics.load(this.#u32, index) | 1;
    Atomics.store(this.#u32, index, odd);
    write();
    Atomics.store(this.#u32, index, odd + 1);
  }

  #store(field: wire.Field, value: number): void {
    Atomics.store(this.#u32, field.offset / 4, value);
  }
}

/** The words of one service. Only the agent's event loop writes them. */
export class ServiceWords {
  readonly #u32: Uint32Array;
  readonly #u64: BigUint64Array;

  constructor(page: ArrayBuffer, offset: number) {
    this.#u32 = new Uint32Array(page, offset, wire.services.entryBytes / 4);
    this.#u64 = new BigUint64Array(page, offset, wire.services.entryBytes / 8);
  }

  /** It is about to start, and has given no sign of life yet. */
  begin(): void {
    Atomics.store(this.#u64, wire.services.signs / 8, 0n);
  }

  sign(): void {
    Atomics.add(this.#u64, wire.services.signs / 8, 1n);
  }

  set watchdogMs(ms: number) {
    Atomics.store(this.#u32, wire.services.watchdogMs / 4, Math.min(Math.ceil(ms), 0xffff_ffff));
  }

  set stopped(isStopped: boolean) {
    Atomics.store(this.#u32, wire.services.stopped / 4, isStopped ? 1 : 0);
  }

  queue(length: number, hasAccepted: boolean): void {
    if (hasAccepted) Atomics.add(this.#u64, wire.services.accepts / 8, 1n);
    Atomics.store(this.#u32, wire.services.queued / 4, length);
  }
}

/** BAR 2 of the first ivshmem device (Red Hat 1af4:1110), as a file to map. */
function findIvshmem(): string | undefined {
  const read = (device: string, file: string) => readFileSync(`${PCI}/${device}/${file}`, 'latin1').trim();
  try {
    const device = readdirSync(PCI).find(
      d => read(d, 'vendor') === '0x1af4' && read(d, 'device') === '0x1110',
    );
    if (device === undefined) return undefined;
    writeFileSync(`${PCI}/${device}/enable`, '1'); // no driver is bound that would have switched its memory on
    return `${PCI}/${device}/resource2`;
  } catch {
    return undefined; // no PCI bus at all, as in a Xen PV guest
  }
}
