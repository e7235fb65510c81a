import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { loadAddon } from './native/native.js';
import * as wire from './wire/control-page.js';

const PCI = '/sys/bus/pci/devices';
/** Built with the image; loading it is a drill. */
const HALT_MODULE = '/opt/holdfast/holdfast-halt.ko';

export interface Report {
  application: wire.ApplicationState;
  pid: number;
  exitStatus: number;
}

/** The guest's side of the control page. */
export class ControlPage {
  readonly #u32: Uint32Array;
  readonly #u64: BigUint64Array;
  /** Called with commands that are the event loop's to carry out. */
  onCommand: (command: number) => void = () => {};

  constructor(readonly buffer: ArrayBuffer) {
    this.#u32 = new Uint32Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
  }

  /** Maps the first ivshmem device and starts the heartbeat; undefined where there is no such device. */
  static open(): ControlPage | undefined {
    const path = findIvshmem();
    if (path === undefined) return undefined;
    const addon = loadAddon();
    const page = new ControlPage(addon.mapPage(path, statSync(path).size));
    const { host, guest } = wire;
    page.#publishIdentity();
    const layout = {
      heartbeat: guest.heartbeat.offset,
      epochEcho: guest.epochEcho.offset,
      commandEcho: guest.commandEcho.offset,
      clockEcho: guest.clockEcho.offset,
      activationSeq: host.activationSeq.offset,
      epoch: host.epoch.offset,
      wallClockNs: host.wallClockNs.offset,
      command: host.command.offset,
      commandId: host.commandId.offset,
      ...wire.command,
      haltModule: HALT_MODULE,
      beatMs: wire.BEAT_MS,
      backupBeatMs: wire.BACKUP_BEAT_MS,
      clockToleranceMs: 100,
    };
    addon.startHeartbeat(page.buffer, layout, command => page.onCommand(command));
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
    this.#locked(() => {
      for (let i = 0; i < 4; i++) {
        Atomics.store(this.#u32, wire.guest.bootId.offset / 4 + i, bytes.readUInt32LE(4 * i));
      }
      this.#store(wire.guest.application, wire.APPLICATION_STATES.indexOf('starting'));
    });
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
