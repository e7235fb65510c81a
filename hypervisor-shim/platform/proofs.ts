/**
 * Executable proofs of what the code assumes of the kernel: each does, in a place of its own, what the data path and the
 * replay will do. `holdfast doctor` runs them on a user's host, `test/platform` on ours.
 *
 * A proof resolves with what was found, and rejects with what the kernel said. It leaves nothing behind.
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { DataPath } from '../datapath/datapath.js';
import { createReplayNamespace, removeReplayNamespace } from '../replay/namespace.js';
import { BPFFS, hasPrivateMounts, isBpffsMounted } from './bpf-fs.js';
import type { ProofJob } from './worker.js';

const run = promisify(execFile);

/** Bits of the kernel's capability sets (linux/capability.h). */
const CAPABILITIES = {
  CAP_KILL: 5,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_ADMIN: 21,
  CAP_PERFMON: 38,
  CAP_BPF: 39,
};

/** Unique on the host, and short enough for interface names. */
const scratch = () => `hfd${process.pid}`;

/** Root, with every capability that is used. */
export async function proveCapabilities(): Promise<string> {
  if (process.getuid?.() !== 0) throw new Error(`the user is ${process.getuid?.()}, not root`);
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const has = (bit: number) => (BigInt(`0x${mask}`) >> BigInt(bit)) & 1n;
  const lacking = Object.entries(CAPABILITIES).flatMap(([name, bit]) => (has(bit) ? [] : [name]));
  if (lacking.length > 0) throw new Error(`root lacks ${lacking.join(', ')}`);
  return `root with ${Object.keys(CAPABILITIES).join(', ')}`;
}

/** Linux 6.1: what the verifier of an older one takes is not known. */
export async function proveKernel(): Promise<string> {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 1)) throw new Error(`the kernel is ${release()}`);
  if (!existsSync('/sys/kernel/btf/vmlinux'))
    throw new Error(`${release()} has no BTF (/sys/kernel/btf/vmlinux)`);
  return `${release()} with BTF`;
}

/** A BPF file system is, or can be, mounted where pins go. */
export async function proveBpffs(): Promise<string> {
  if (isBpffsMounted()) return `mounted on ${BPFFS}`;
  if (hasPrivateMounts()) throw new Error(`not mounted on ${BPFFS}, and mounts of this process end with it`);
  // In a mount namespace of its own: to look is not to change.
  await run('unshare', ['--mount', 'mount', '-t', 'bpf', 'bpf', BPFFS]);
  return `can be mounted on ${BPFFS}`;
}

/** The verifier takes the data path, its maps are made and pinned, and its programs attach at clsact. */
export async function proveDataPath(): Promise<string> {
  const namespace = scratch();
  // Pinned where no service can be: their names have no underscore.
  const pins = `${BPFFS}/holdfast/doctor_${process.pid}`;
  try {
    // Within: without CAP_SYS_ADMIN it fails half-way, and leaves its file.
    await run('ip', ['netns', 'add', namespace]);
    await run('ip', ['-n', namespace, 'link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'peer']);
    const { stdout } = await run('ip', ['-n', namespace, '-j', 'link', 'show']);
    const links = JSON.parse(stdout) as { ifname: string; ifindex: number }[];
    const [wire, port] = ['wire', 'peer'].map(name => links.find(({ ifname }) => ifname === name)!.ifindex);
    const place = { namespace: `/run/netns/${namespace}`, pins };
    const ms = await inWorker({ kind: 'data-path', ...place, wire: wire!, port: port! });
    return `loaded, pinned and attached in ${ms.toFixed(0)} ms`;
  } finally {
    DataPath.remove(pins);
    await run('ip', ['netns', 'del', namespace]).catch(() => {});
  }
}

/** A replay namespace can be made, and a socket in it plays a client: foreign address, chosen sequence number. */
export async function proveReplay(): Promise<string> {
  const name = scratch();
  const device = `${name}r`;
  const service = { address: '192.0.2.1' };
  try {
    // Within: it may fail when half is made.
    const { path } = await createReplayNamespace(name, device, service, '02:00:00:00:00:01');
    await inWorker({ kind: 'replay', namespace: path, service: service.address });
    return 'namespaces, ip rule, IP_TRANSPARENT and TCP_REPAIR work';
  } finally {
    await removeReplayNamespace(name, device);
  }
}

/** Taps with virtio headers can be made. */
export async function proveTun(): Promise<string> {
  const namespace = scratch();
  try {
    // Within: without CAP_SYS_ADMIN it fails half-way, and leaves its file.
    await run('ip', ['netns', 'add', namespace]);
    await run('ip', ['-n', namespace, 'tuntap', 'add', 'dev', 'tap', 'mode', 'tap', 'vnet_hdr']);
    return 'a tap could be made';
  } finally {
    await run('ip', ['netns', 'del', namespace]).catch(() => {});
  }
}

/** Runs a job in a thread of its own, which may change its network namespace; resolves with the ms it took. */
async function inWorker(job: ProofJob): Promise<number> {
  const started = performance.now();
  const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: job });
  try {
    // Rejects with what the worker throws.
    await once(worker, 'message');
    return performance.now() - started;
  } finally {
    await worker.terminate();
  }
}
