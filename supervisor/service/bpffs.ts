import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import {
  BPFFS,
  hasPrivateMounts,
  isBpffsMounted,
  PRIVATE_MOUNTS_REMEDY,
} from '../../hypervisor-shim/platform/bpf-fs.js';

/**
 * Throws `HF_BPFFS` where pins would not outlive this process, and those of an earlier one cannot be seen: who goes on from
 * there takes every service for one that has lost its data path.
 */
export function checkBpffs(): void {
  if (isBpffsMounted() || !hasPrivateMounts()) return;
  throw new HoldfastError(
    'HF_BPFFS',
    `no BPF file system is on ${BPFFS}, and mounts of this process are its own: what is pinned there would end with it`,
    PRIVATE_MOUNTS_REMEDY,
  );
}

/** Mounts the BPF file system where pins go, unless it is. Throws `HF_BPFFS`. */
export async function ensureBpffs(): Promise<void> {
  checkBpffs();
  try {
    if (!isBpffsMounted()) await promisify(execFile)('mount', ['-t', 'bpf', 'bpf', BPFFS]);
  } catch (cause) {
    throw new HoldfastError(
      'HF_BPFFS',
      `cannot mount the BPF file system on ${BPFFS}: ${(cause as Error).message}`,
      'Start the supervisor as root, on a kernel with CONFIG_BPF_SYSCALL, where /sys is mounted.',
      { cause },
    );
  }
}
