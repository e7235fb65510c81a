import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Check, failure, type Look, ok, warning } from './finding.js';
import { builtImages } from './images.js';
import type { Subject } from './subject.js';

const run = promisify(execFile);
const EMULATOR = 'qemu-system-x86_64';
const OLDEST_QEMU = 7;
const DEVICES = ['virtio-net-pci', 'virtio-blk-pci', 'virtio-rng-pci', 'ivshmem-plain', 'pvpanic'];

/** QEMU, libvirt, and which accelerator guests get. */
export function hypervisorChecks(subject: Subject): Check[] {
  return [
    { name: 'QEMU', remedy: 'apt-get install qemu-system-x86', look: qemu },
    {
      name: 'libvirt',
      remedy: 'apt-get install libvirt0 libvirt-daemon libvirt-daemon-driver-qemu',
      look: () => libvirt(subject),
    },
    {
      name: 'accelerator',
      remedy: 'Set HOLDFAST_ACCEL=tcg to do without KVM.',
      look: () => accelerator(subject),
    },
  ];
}

async function qemu(): Promise<Look> {
  const { stdout } = await run(EMULATOR, ['--version']);
  const version = /version (\S+)/.exec(stdout)?.[1] ?? 'of no known version';
  const { stdout: devices } = await run(EMULATOR, ['-device', 'help'], { maxBuffer: 16 << 20 });
  const lacking = DEVICES.filter(device => !devices.includes(`name "${device}"`));
  if (lacking.length > 0) {
    return failure(
      `QEMU ${version} lacks ${lacking.join(', ')}`,
      'Install a QEMU that was built with them, as Debian’s is.',
    );
  }
  if (Number.parseInt(version, 10) < OLDEST_QEMU) {
    return warning(`QEMU ${version}`, `Versions before ${OLDEST_QEMU} are not tried; Debian 12 has 7.2.`);
  }
  return ok(`QEMU ${version} with ${DEVICES.slice(-2).join(' and ')}`);
}

/** Loaded late, as everywhere: without the library the import itself fails. */
async function libvirt({ config }: Subject): Promise<Look> {
  const { LibvirtConnection } = await import('../../hypervisor-shim/libvirt/connection.js');
  const { PrivateDaemon } = await import('../../hypervisor-shim/libvirt/private-daemon.js');
  const uri = config?.hypervisor.uri;
  if (uri !== undefined) {
    const { openGivenUri } = await import('../../hypervisor-shim/libvirt/given-uri.js');
    const connection = await openGivenUri(uri);
    const guests = await connection.call('list').finally(() => connection.close());
    return ok(`${uri} answers, it has ${guests.length} guests`);
  }
  // A place of its own: a daemon that serves is not to be disturbed.
  const directory = mkdtempSync(join(tmpdir(), 'hfd-'));
  try {
    const daemon = await PrivateDaemon.ensure(directory);
    try {
      await (await LibvirtConnection.open(daemon.uri)).close();
    } finally {
      await daemon.stop();
    }
    return ok('a private libvirtd starts and answers');
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const TCG = 'guests run under emulation (TCG): slower, and a guest that hangs is noticed after 3 s';

async function accelerator({ config }: Subject): Promise<Look> {
  const { chooseAccelerator } = await import('../../hypervisor-shim/libvirt/accelerator.js');
  if (process.env.HOLDFAST_ACCEL) return ok(`${process.env.HOLDFAST_ACCEL}, by HOLDFAST_ACCEL`);
  if (!existsSync('/dev/kvm')) {
    return warning(
      `no /dev/kvm: ${TCG}`,
      'If the CPU has VT-x or AMD-V: enable it in the firmware (or nested, in the host above), modprobe kvm.',
    );
  }
  const image = builtImages(config).at(0);
  if (!image?.kernel)
    return warning(
      '/dev/kvm is there; whether it works shows at the first boot',
      'Build an image (`images/build`), then ask again.',
    );
  const directory = mkdtempSync(join(tmpdir(), 'hfd-'));
  try {
    const accel = await chooseAccelerator({ directory, trial: { kernel: image.kernel } });
    if (accel === 'kvm') return ok('KVM: a trial boot worked');
    return warning(
      `/dev/kvm is there, but a trial boot did not work: ${TCG}`,
      'See that no other hypervisor uses the CPU’s extensions, and that nested virtualization is enabled above.',
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
