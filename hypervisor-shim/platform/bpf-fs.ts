import { readFileSync, statfsSync } from 'node:fs';

export const BPFFS = '/sys/fs/bpf';
const BPF_FS_MAGIC = 0xcafe4a11;

export const PRIVATE_MOUNTS_REMEDY =
  'Start it with `nsenter --net=/run/netns/NS holdfast ...` instead of `ip netns exec NS`, or mount it on the host first: mount -t bpf bpf /sys/fs/bpf.';

/** Whether the BPF file system is mounted where pins go. */
export function isBpffsMounted(): boolean {
  try {
    return statfsSync(BPFFS).type === BPF_FS_MAGIC;
  } catch {
    return false;
  }
}

/**
 * Whether this process sees mounts of its own, as under `ip netns exec`: what it mounts, and pins there, is gone with it. Says
 * no where it cannot be known.
 */
export function hasPrivateMounts(): boolean {
  try {
    const host = mounts('1');
    return host.size > 0 && [...mounts('self')].every(id => !host.has(id));
  } catch {
    return false;
  }
}

/** Ids of mounts, which no two namespaces share. To compare the namespaces themselves takes a right that containers may lack. */
function mounts(pid: string): Set<string> {
  const text = readFileSync(`/proc/${pid}/mountinfo`, 'latin1');
  return new Set(text.split('\n').flatMap(line => line.split(' ')[0] || []));
}
