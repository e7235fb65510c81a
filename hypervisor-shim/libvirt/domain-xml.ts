import { STORAGE_NAME } from '../../guest-agent/wire/control-page.js';
import type { DataDisk, GuestSpec } from '../hypervisor.js';
import { element, textElement } from './xml.js';

export interface DomainXmlOptions {
  accel: 'kvm' | 'tcg';
  /**
   * Adds an i6300esb watchdog that pauses the guest and reports. Off by default: the shared page's heartbeat is faster,
   * and Debian's cloud kernel has no driver for it.
   */
  watchdog?: boolean;
}

/**
 * Fixed PCI slots on the root bus. Linux names network devices in slot order, so the service NIC is always the first
 * and the management NIC the second, whatever else a guest has.
 */
const slot = {
  nic: 0x03,
  disk: 0x08,
  controlPage: 0x18,
  rng: 0x19,
  watchdog: 0x1a,
  hotPlug: 0x1b,
  shared: 0x1c,
};
const maxNics = slot.disk - slot.nic;
const maxDisks = slot.controlPage - slot.disk;

const pci = (number: number) =>
  element('address', { type: 'pci', domain: 0, bus: 0, slot: number, function: 0 });

/**
 * The libvirt domain of a guest. Pure. Throws `RangeError` for what cannot be expressed: too many devices, characters
 * that XML has no form for, a control page that is no power of two of at least 1 MiB (ivshmem's rule).
 */
export function domainXml(spec: GuestSpec, options: DomainXmlOptions): string {
  if (spec.nics.length > maxNics) throw new RangeError(`nics: at most ${maxNics}, got ${spec.nics.length}`);
  if (spec.disks.length > maxDisks)
    throw new RangeError(`disks: at most ${maxDisks}, got ${spec.disks.length}`);
  const { boot, controlPage } = spec;
  return element('domain', { type: options.accel === 'kvm' ? 'kvm' : 'qemu' }, [
    textElement('name', spec.name),
    textElement('memory', spec.memoryMiB, { unit: 'MiB' }),
    spec.sharedDirectory ? memoryForOthers : undefined,
    spec.oemStrings && oemStrings(spec.oemStrings),
    vcpu(spec.vcpus, options.accel),
    element('os', {}, [
      // q35 boots a direct kernel in 1.45 s under TCG, pc in 1.6 s.
      textElement('type', 'hvm', { arch: 'x86_64', machine: 'q35' }),
      ...(boot
        ? [
            textElement('kernel', boot.kernel),
            textElement('initrd', boot.initrd),
            textElement('cmdline', boot.cmdline),
          ]
        : [element('boot', { dev: 'hd' })]),
      spec.oemStrings && element('smbios', { mode: 'sysinfo' }),
    ]),
    element('features', {}, [element('acpi'), element('apic')]),
    cpu(options.accel),
    element('clock', { offset: 'utc' }, [
      element('timer', { name: 'rtc', tickpolicy: 'catchup' }),
      element('timer', { name: 'pit', tickpolicy: 'delay' }),
      element('timer', { name: 'hpet', present: 'no' }),
    ]),
    textElement('on_poweroff', 'destroy'),
    // A rebooted kernel knows none of its connections and would answer each with RST under an epoch that is still
    // valid. So it does not come back by itself: the supervisor sees 'shutdown' and starts a fresh guest.
    textElement('on_reboot', 'destroy'),
    // Stays paused as it was, for diagnosis and dump.
    textElement('on_crash', 'preserve'),
    element('devices', {}, [
      ...spec.disks.map(disk),
      element('controller', { type: 'usb', model: 'none' }),
      ...(spec.takesDataDisk ? hotPlugPort : []),
      spec.sharedDirectory ? sharedDirectory(spec.sharedDirectory) : undefined,
      ...spec.nics.map(nic),
      element('serial', { type: 'file' }, [
        element('source', { path: spec.serialLog, append: 'off' }),
        element('target', { type: 'isa-serial', port: 0 }),
      ]),
      element('memballoon', { model: 'none' }),
      element('rng', { model: 'virtio' }, [
        textElement('backend', '/dev/urandom', { model: 'random' }),
        pci(slot.rng),
      ]),
      element('panic', { model: 'isa' }),
      controlPage && sharedPage(controlPage),
      options.watchdog
        ? element('watchdog', { model: 'i6300esb', action: 'pause' }, [pci(slot.watchdog)])
        : undefined,
    ]),
  ]);
}

function oemStrings(strings: string[]): string {
  const entries = strings.map(text => textElement('entry', text));
  return element('sysinfo', { type: 'smbios' }, [element('oemStrings', {}, entries)]);
}

/**
 * TCG leaves the guest's memory barriers out when a machine can have but one vCPU (QEMU 7.2, `tcg_gen_mb`), although its devices
 * run in another thread: sooner or later a virtio queue's kick is lost, and the guest's network or disk stands still for ever.
 * So the machine has room for a second vCPU, which is never plugged in.
 */
function vcpu(count: number, accel: DomainXmlOptions['accel']): string {
  if (accel === 'kvm' || count > 1) return textElement('vcpu', count, { placement: 'static' });
  return textElement('vcpu', 2, { placement: 'static', current: 1 });
}

/**
 * Under TCG a model without AVX: emulated wide vectors cost more than they save (`max` boots 10% slower). RDRAND spares
 * the guest's random pool a wait at boot.
 */
function cpu(accel: DomainXmlOptions['accel']): string {
  if (accel === 'kvm') return element('cpu', { mode: 'host-passthrough', migratable: 'off' });
  return element('cpu', { mode: 'custom', match: 'exact', check: 'none' }, [
    textElement('model', 'Nehalem', { fallback: 'forbid' }),
    element('feature', { policy: 'require', name: 'rdrand' }),
  ]);
}

function disk({ path, format }: GuestSpec['disks'][number], index: number): string {
  return element('disk', { type: 'file', device: 'disk' }, [
    // Overlays are private and disposable: a guest that dies is replaced, not repaired, so no flush is worth waiting for.
    element('driver', { name: 'qemu', type: format, cache: 'unsafe', discard: 'unmap' }),
    element('source', { file: path }),
    element('target', { dev: `vd${String.fromCharCode(97 + index)}`, bus: 'virtio' }),
    pci(slot.disk + index),
  ]);
}

/** The tap exists already and stays after the guest. Created with `vnet_hdr`, it keeps checksum and GSO offload on. */
function nic({ tap, mac }: GuestSpec['nics'][number], index: number): string {
  return element('interface', { type: 'ethernet' }, [
    element('mac', { address: mac }),
    element('target', { dev: tap, managed: 'no' }),
    element('model', { type: 'virtio' }),
    // No option ROM: nothing boots from the network, and SeaBIOS would take 0.1 s to run it.
    element('rom', { enabled: 'no' }),
    pci(slot.nic + index),
  ]);
}

function sharedPage({ shm, bytes }: NonNullable<GuestSpec['controlPage']>): string {
  if (bytes < 1 << 20 || (bytes & (bytes - 1)) !== 0) {
    throw new RangeError(`controlPage.bytes: must be a power of two of at least 1048576, got ${bytes}`);
  }
  if (shm.includes('/'))
    throw new RangeError(`controlPage.shm: a name below /dev/shm without '/', got '${shm}'`);
  return element('shmem', { name: shm }, [
    element('model', { type: 'ivshmem-plain' }),
    textElement('size', bytes >> 20, { unit: 'M' }),
    pci(slot.controlPage),
  ]);
}

/** Nothing can be plugged into the root bus itself. */
const hotPlugPort = [
  element('controller', { type: 'pci', index: 0, model: 'pcie-root' }),
  element('controller', { type: 'pci', index: 1, model: 'pcie-root-port' }, [pci(slot.hotPlug)]),
];

/**
 * A disk in the hot-plug port. Of all caches of the host's only its page cache is between guest and file: both guests see it, it
 * survives a QEMU that is killed, and a flush in the guest reaches the disk below. QEMU's image lock (on by default) refuses a
 * second writer.
 */
export function dataDiskXml({ path, format, kind }: DataDisk): string {
  return element('disk', { type: kind, device: 'disk' }, [
    element('driver', { name: 'qemu', type: format, cache: 'writeback', discard: 'unmap' }),
    element('source', { [kind === 'block' ? 'dev' : 'file']: path }),
    element('target', { dev: 'vdz', bus: 'virtio' }),
    textElement('serial', STORAGE_NAME),
    element('address', { type: 'pci', domain: 0, bus: 1, slot: 0, function: 0 }),
  ]);
}

/** Whether the domain of this description has such a disk. */
export function hasDataDisk(xml: string): boolean {
  return xml.includes(`<serial>${STORAGE_NAME}</serial>`);
}

/** The process that serves the directory reads the guest's memory. */
const memoryForOthers = element('memoryBacking', {}, [
  element('source', { type: 'memfd' }),
  element('access', { mode: 'shared' }),
]);

/** Without any cache in the guest: two of them look at the directory. */
function sharedDirectory(path: string): string {
  return element('filesystem', { type: 'mount', accessmode: 'passthrough' }, [
    element('driver', { type: 'virtiofs' }),
    element('binary', {}, [element('cache', { mode: 'none' })]),
    element('source', { dir: path }),
    element('target', { dir: STORAGE_NAME }),
    pci(slot.shared),
  ]);
}
