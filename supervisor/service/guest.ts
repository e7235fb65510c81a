import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { GuestReport } from '../../hypervisor-shim/guest-channel/guest-channel.js';
import type { IvshmemChannel } from '../../hypervisor-shim/guest-channel/ivshmem.js';
import type { DataDisk, Guest, GuestEvent } from '../../hypervisor-shim/hypervisor.js';
import type { GuestStatus } from '../api/types.js';
import { now } from '../clock.js';

/** What a boot may take, ms: two orders above what it takes, for a host that is busy booting others. */
const BOOT_MS = 120_000;
/** The same of a disk with a boot loader and an init of its own: some 30 s under emulation, on a host that does nothing else. */
export const OWN_BOOT_MS = 600_000;
const BOOT_POLL_MS = 20;
/** What QEMU may take to stop its vCPUs, ms: a thousand times what it does take. */
const HALT_MS = 2000;
const TAIL_LINES = 15;
/** How long connections wait for the agent to set the clock, ms: a hundred times what it takes. */
const CLOCK_MS = 500;

const wallClock = (): bigint => BigInt(Date.now()) * 1_000_000n;

/** One virtual machine in a slot of the data path, from its definition to its removal. */
export class GuestVm {
  state: GuestStatus['state'] = 'booting';
  pid: number | undefined;
  /** Ended or panicked: why. */
  failure: string | undefined;
  #vcpuMs = 0;
  #vcpuMsAtSuspend: number | undefined;
  /** A backup that is awake for maintenance; the upkeep suspends it when this is over. */
  isAwake = false;
  /** Of the management NIC, beside the one of its slot. */
  furtherAddress: string | undefined;
  /** A dump in progress, which removal waits for. */
  busy: Promise<void> = Promise.resolve();

  constructor(
    readonly name: string,
    readonly slot: number,
    readonly ifindex: number,
    private readonly machine: Guest,
    readonly channel: IvshmemChannel,
    readonly serialLog: string,
    /** Its own disk. */
    readonly overlay: string,
    private readonly bootMs = BOOT_MS,
  ) {}

  report(): GuestReport {
    return this.channel.read();
  }

  /**
   * Starts it and resolves when its service listens, or waits for the disk it will be given. Throws `HF_GUEST_BOOT` with the
   * console's last lines.
   */
  async boot(signal: AbortSignal, until: 'listening' | 'waiting'): Promise<void> {
    await this.machine.start();
    this.pid = await this.machine.pid();
    for (const deadline = now() + this.bootMs; this.report().application !== until; ) {
      if (this.failure !== undefined) throw this.#bootError(this.failure);
      if (now() > deadline) throw this.#bootError(`it is not ${until} after ${this.bootMs / 1000} s`);
      await sleep(BOOT_POLL_MS, undefined, { signal });
    }
    if (this.failure !== undefined) throw this.#bootError(this.failure);
    this.state = 'ready';
  }

  /** Finds out how it fares, for a supervisor that did not start it. */
  async look(): Promise<void> {
    const state = await this.machine.state();
    if (state === 'crashed') this.#fail('crashed', 'kernel panic (pvpanic) while no supervisor was there');
    else if (state === 'shutoff') this.#fail('off', 'ended while no supervisor was there');
    if (this.failure !== undefined) return;
    this.pid = await this.machine.pid();
    this.state = state === 'paused' ? 'suspended' : 'ready';
    if (state === 'paused') this.#vcpuMsAtSuspend = await this.vcpuMs();
  }

  /** Lays it aside as a backup. */
  async suspend(): Promise<void> {
    await this.machine.suspend();
    this.#vcpuMsAtSuspend = await this.vcpuMs();
    this.state = 'suspended';
  }

  /** Lets a suspended backup run for maintenance. A takeover may come at any moment. */
  async rouse(): Promise<void> {
    this.isAwake = true;
    this.state = 'ready';
    this.channel.setClock(wallClock());
    await this.machine.resume();
  }

  /** Makes it the active one; resolves with the moment its vCPUs ran again. */
  async wake(epoch: number): Promise<number> {
    // One that is being roused may not run yet.
    const asleep = this.state === 'suspended' || this.isAwake;
    this.isAwake = false;
    this.state = 'active';
    this.channel.activate(epoch, wallClock());
    if (asleep) await this.machine.resume();
    return now();
  }

  /**
   * Resolves when the agent has set its clock and knows that it is active in `epoch`; or after `CLOCK_MS`, with false: an agent
   * that does not run is no reason to let clients wait for ever.
   */
  async isTold(epoch: number): Promise<boolean> {
    for (const deadline = now() + CLOCK_MS; this.report().epoch !== epoch; await sleep(1)) {
      if (this.failure !== undefined || now() > deadline) return false;
    }
    return true;
  }

  /**
   * Stops its vCPUs if they still run: it is fenced, but it has a management NIC, too. A QEMU that does not answer would keep
   * libvirt waiting for ever, and with it the next takeover: it is killed.
   */
  async halt(): Promise<void> {
    if (this.state === 'off') return;
    const late = sleep(HALT_MS, 'late', { ref: false });
    const suspended = this.machine.suspend().catch(() => {});
    if ((await Promise.race([suspended, late])) === 'late' && this.pid !== undefined) {
      process.kill(this.pid, 'SIGKILL');
    }
  }

  /** Ends it, whatever state it is in: when this resolves nothing that it wrote is still on its way to a disk. */
  async kill(): Promise<void> {
    this.state = 'off';
    this.pid = undefined;
    await this.machine.kill();
  }

  attachDisk(disk: DataDisk): Promise<void> {
    return this.machine.attachDisk(disk);
  }

  hasDataDisk(): Promise<boolean> {
    return this.machine.hasDataDisk();
  }

  /** Hypervisor's word, asked now. */
  runs(): Promise<boolean> {
    return this.machine.state().then(
      state => state === 'running',
      () => false,
    );
  }

  /** Resolves when the emulator's main loop has come round, or `mostMs` have passed. */
  async emulatorCameRound(mostMs: number): Promise<void> {
    const answered = this.machine.roundTrip().catch(() => {});
    await Promise.race([answered, sleep(mostMs, undefined, { ref: false })]);
  }

  /** Takes note of what the hypervisor says of it. */
  note(event: GuestEvent): void {
    if (event.kind === 'panicked') this.#fail('crashed', event.detail);
    else if (event.kind === 'gone' || event.kind === 'shutdown') this.#fail('off', event.detail);
  }

  #fail(state: 'crashed' | 'off', detail: string): void {
    this.state = state;
    this.failure ??= detail;
    if (state === 'off') this.pid = undefined;
  }

  /** vCPU time so far, ms; what was last known if it is off. */
  async vcpuMs(): Promise<number> {
    const ns = await this.machine.vcpuTimeNs().catch(() => undefined);
    if (ns !== undefined) this.#vcpuMs = Number(ns) / 1e6;
    return this.#vcpuMs;
  }

  async status(role: GuestStatus['role']): Promise<Omit<GuestStatus, 'managementAddress'>> {
    return {
      name: this.name,
      role,
      state: this.state,
      bootId: this.report().bootId,
      vcpuMs: await this.vcpuMs(),
      vcpuMsAtSuspend: this.#vcpuMsAtSuspend,
      serialLog: this.serialLog,
      pid: this.pid,
      residentBytes: this.pid === undefined ? undefined : residentBytes(this.pid),
    };
  }

  /** Writes its memory to `file`; `remove` waits for that. */
  dump(file: string): Promise<void> {
    const dump = this.machine.dump(file);
    this.busy = dump.catch(() => {});
    return dump;
  }

  /** Ends and undefines it. No error if that has happened already. */
  async remove(): Promise<void> {
    await this.busy;
    await this.machine.destroy();
    this.state = 'off';
    this.pid = undefined;
    await this.machine.undefine();
    this.channel.close();
  }

  #bootError(why: string): HoldfastError {
    return new HoldfastError(
      'HF_GUEST_BOOT',
      `guest ${this.name} did not start: ${why}; the end of its console:\n${tail(this.serialLog)}`,
      `Correct the image (the whole console is in ${this.serialLog}), then protect the service again.`,
    );
  }
}

/** Memory of the host's that a process takes up now; undefined if it has ended. */
function residentBytes(pid: number): number | undefined {
  try {
    const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? [];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

/** Consoles hold what a guest wrote: control characters other than line ends must not reach a terminal. */
function tail(file: string): string {
  try {
    const lines = readFileSync(file, 'utf8')
      .replace(/[^\P{Cc}\n]/gu, '')
      .trimEnd()
      .split('\n');
    return lines.slice(-TAIL_LINES).join('\n');
  } catch {
    return '(no console)';
  }
}
