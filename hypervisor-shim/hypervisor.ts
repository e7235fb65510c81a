import type { EventEmitter } from 'node:events';

/** How a guest is made. Paths are absolute; a disk is a base image plus, usually, a qcow2 overlay of the guest's own. */
export interface GuestSpec {
  /** Domain name, unique on the host. */
  name: string;
  memoryMiB: number;
  vcpus: number;
  /** Direct kernel boot (appliance images); absent for a disk that carries its own boot loader. */
  boot?: { kernel: string; initrd: string; cmdline: string };
  /**
   * Words for a guest that has no command line of ours: SMBIOS OEM strings (type 11), which any kernel shows in
   * /sys/firmware/dmi/tables/DMI.
   */
  oemStrings?: string[];
  disks: { path: string; format: 'qcow2' | 'raw' }[];
  /** Service NIC first, management NIC second. The taps exist already and stay ours (`managed='no'`). */
  nics: { tap: string; mac: string }[];
  /** Shared control page, where the hypervisor has ivshmem: file `/dev/shm/<shm>`. */
  controlPage?: { shm: string; bytes: number };
  /** Leaves a place for a `DataDisk`. */
  takesDataDisk?: boolean;
  /** Directory of the host's that the guest sees as file system `STORAGE_NAME` (virtiofs). */
  sharedDirectory?: string;
  /** File that receives the serial console. */
  serialLog: string;
}

/** A disk that moves from guest to guest. At most one of them may ever hold it. */
export interface DataDisk {
  path: string;
  format: 'qcow2' | 'raw';
  /** `block`: a device of the host's. */
  kind: 'file' | 'block';
}

export type GuestState = 'running' | 'paused' | 'crashed' | 'shutoff';

/**
 * What happened to a guest, by name. `atNs` is CLOCK_MONOTONIC in ns (`process.hrtime.bigint()`) when the event was seen.
 * `panicked` comes from pvpanic, `gone` when the hypervisor process ended without being asked to.
 */
export interface GuestEvent {
  guest: string;
  kind: 'started' | 'suspended' | 'resumed' | 'panicked' | 'gone' | 'shutdown' | 'reboot' | 'watchdog';
  detail: string;
  atNs: bigint;
}

/** One running or defined guest. All methods reject with `HoldfastError`, which carries the hypervisor's own code and text. */
export interface Guest {
  readonly name: string;
  /** Starts it, paused if asked: no vCPU has run yet then. */
  start(options?: { paused?: boolean }): Promise<void>;
  suspend(): Promise<void>;
  resume(): Promise<void>;
  /** Hard stop; no error if it is already off. */
  destroy(): Promise<void>;
  /**
   * Ends the process that runs the guest, whatever state that is in and without asking it. When this resolves nothing that the
   * guest wrote is still on its way to a disk.
   */
  kill(): Promise<void>;
  /** Plugs the disk in while the guest runs or is paused. Rejects if another process holds it. */
  attachDisk(disk: DataDisk): Promise<void>;
  /** Whether a `DataDisk` is plugged in. The guest must be on. */
  hasDataDisk(): Promise<boolean>;
  /** Removes the definition. The guest must be off. */
  undefine(): Promise<void>;
  /** Writes the guest's memory as an ELF core to `file`. */
  dump(file: string): Promise<void>;
  state(): Promise<GuestState>;
  /** Resolves when the emulator itself has answered a question, on the thread that also serves the guest's timers and devices. */
  roundTrip(): Promise<void>;
  /** CPU time its vCPUs have used, ns. */
  vcpuTimeNs(): Promise<bigint>;
  /** Process that runs the guest (QEMU), if the hypervisor has one. */
  pid(): Promise<number | undefined>;
}

/** A hypervisor. `libvirt` (QEMU, KVM or TCG) is the first; Xen follows behind the same face. */
export interface Hypervisor extends EventEmitter<{ guest: [GuestEvent] }> {
  readonly kind: 'qemu' | 'xen';
  /** Accelerator in use, decided by trying it once. */
  readonly accel: 'kvm' | 'tcg' | 'xen';
  /** Defines a guest; an equal name that is off is redefined, one that runs is an error. */
  define(spec: GuestSpec): Promise<Guest>;
  /** An already defined guest, or undefined. */
  lookup(name: string): Promise<Guest | undefined>;
  /** Names of all guests it knows. */
  list(): Promise<string[]>;
  close(): Promise<void>;
}
