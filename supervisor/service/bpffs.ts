import { execFile } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { promisify } from 'node:util';
import { HoldfastError } from '../../hypervisor-shim/errors.js';

const BPFFS = '/sys/fs/bpf';
const BPF_FS_MAGIC = 0xcafe4a11;

/** Mounts the BPF file system where pins go, unless it is. Throws `HF_BPFFS`. */
export async function ensureBpffs(): Promise<void> {
  try {
    if (statfsSync(BPFFS).type === BPF_FS_MAGIC) return;
    await promisify(execFile)('mount', ['-t', 'bpf', 'bpf', BPFFS]);
  } catch (cause) {
    throw new HoldfastError(
      'HF_BPFFS',
      `cannot mount the BPF file system on ${BPFFS}: ${(cause as Error).message}`,
      'Start the supervisor as root with nsenter rather than `ip netns exec`, which hides that mount.',
      { cause },
    );
  }
}
