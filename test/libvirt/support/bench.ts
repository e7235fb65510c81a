import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest, GuestEvent, GuestSpec, Hypervisor } from '../../../hypervisor-shim/hypervisor.js';
import { removeMountPoints } from '../../../hypervisor-shim/libvirt/daemon-launch.js';
import { type Disposable, disposeAtExit, settled } from '../../lib/at-exit.js';
import { endProcesses, processesOf, signalQuietly } from '../../lib/processes.js';
import { buildInitramfs } from './initramfs.js';
import { findKernel } from './kernel.js';

/** What a run of these tests shares: a directory of its own, the guest's kernel and initramfs; and every libvirtd with its state there. */
export class Bench implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'hf-libvirt-'));
  readonly stateDir = join(this.directory, 'state');
  readonly kernel = findKernel();
  readonly initrd = buildInitramfs(this.directory, this.kernel);

  constructor() {
    disposeAtExit(this);
  }

  spec(name: string, act: string, more: Partial<GuestSpec> = {}): GuestSpec {
    const cmdline = `console=ttyS0 panic=0 quiet act=${act}`;
    return {
      name,
      memoryMiB: 128,
      vcpus: 1,
      boot: { kernel: this.kernel.vmlinuz, initrd: this.initrd, cmdline },
      disks: [],
      nics: [],
      serialLog: this.serialLog(name),
      ...more,
    };
  }

  serialLog(name: string): string {
    return join(this.directory, `${name}.serial`);
  }

  /** Waits until the guest has written `text` on its console. */
  async console(name: string, text: string, ms = 60_000): Promise<string> {
    for (const deadline = Date.now() + ms; Date.now() < deadline; await sleep(20)) {
      const said = readConsole(this.serialLog(name));
      if (said.includes(text)) return said;
    }
    throw new Error(
      `'${text}' not on the console of ${name}: ${readConsole(this.serialLog(name)).slice(-500)}`,
    );
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
    settled(this);
  }

  async dispose(): Promise<void> {
    await endProcesses(async () => processesOf(this.directory), 0);
    await removeMountPoints();
    this.remove();
  }

  disposeNow(): void {
    for (const pid of processesOf(this.directory)) signalQuietly(pid, 'SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function readConsole(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

/** The next event of that kind; ask before causing it. */
export function nextEvent(
  hypervisor: Hypervisor,
  guest: string,
  kind: GuestEvent['kind'],
  ms = 60_000,
): Promise<GuestEvent> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      hypervisor.off('guest', take);
      reject(new Error(`no '${kind}' event of ${guest} within ${ms} ms`));
    }, ms);
    const take = (event: GuestEvent) => {
      if (event.guest !== guest || event.kind !== kind) return;
      clearTimeout(timer);
      hypervisor.off('guest', take);
      resolve(event);
    };
    hypervisor.on('guest', take);
  });
}

/** Waits until libvirt has cleaned up after a guest: it waits for the dead QEMU to be reaped, which pid 1 may put off. */
export async function untilOff(guest: Guest, ms = 10_000): Promise<void> {
  for (const deadline = Date.now() + ms; Date.now() < deadline; await sleep(50)) {
    if ((await guest.state()) === 'shutoff') return;
  }
  throw new Error(`${guest.name} is not off within ${ms} ms`);
}
