import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { arch } from 'node:os';
import { promisify } from 'node:util';
import { PRIVATE_MOUNTS_REMEDY } from '../../hypervisor-shim/platform/bpf-fs.js';
import {
  proveBpffs,
  proveCapabilities,
  proveDataPath,
  proveKernel,
  proveReplay,
  proveTun,
} from '../../hypervisor-shim/platform/proofs.js';
import { type Check, failure, type Look, ok, proof, warning } from './finding.js';

const run = promisify(execFile);

/** Programs that are called, and the Debian package of each. */
const TOOLS: Record<string, string> = {
  ip: 'iproute2',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  flock: 'util-linux',
  sysctl: 'procps',
  mount: 'mount',
  'qemu-img': 'qemu-utils',
  'qemu-system-x86_64': 'qemu-system-x86',
};

/** Clocks that are read without leaving the CPU. The others cost a microsecond and more, at each of many readings. */
const FAST_CLOCKS = ['tsc', 'kvm-clock', 'hyperv_clocksource_tsc_page', 'xen'];

/** Kernel and machine. */
export function hostChecks(): Check[] {
  return [
    proof(
      'privileges',
      proveCapabilities,
      'Run it as root (in a container: with all those capabilities and the host’s network and mounts).',
    ),
    proof('kernel', proveKernel, 'Boot a kernel 6.1 or newer with CONFIG_DEBUG_INFO_BTF, as Debian 12 has.'),
    { name: 'machine', remedy: 'Use a Linux machine on x86-64.', look: machine },
    { name: 'tools', remedy: '', look: tools },
    proof('bpffs', proveBpffs, PRIVATE_MOUNTS_REMEDY),
    proof(
      'data path',
      proveDataPath,
      'The kernel must allow BPF (kernel.unprivileged_bpf_disabled is no hindrance to root; lockdown is) and have sch_ingress, cls_bpf, veth.',
    ),
    proof(
      'replay',
      proveReplay,
      'The kernel needs network namespaces, CONFIG_IP_MULTIPLE_TABLES, and CAP_NET_ADMIN in them.',
    ),
    proof('tap devices', proveTun, 'modprobe tun (CONFIG_TUN); in a container: pass /dev/net/tun through.'),
    { name: 'clock', remedy: 'Read /sys/devices/system/clocksource by hand.', look: clock },
    { name: 'locked memory', remedy: '', look: lockedMemory },
  ];
}

async function machine(): Promise<Look> {
  if (process.platform !== 'linux' || arch() !== 'x64') {
    return failure(`${process.platform} on ${arch()}`, 'Use a Linux machine on x86-64.');
  }
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 20)
    return failure(`Node ${process.version}`, 'Start it by supervisor/holdfast, which brings its own Node.');
  return ok(`x86-64, Node ${process.version}`);
}

async function tools(): Promise<Look> {
  const missing: string[] = [];
  for (const tool of Object.keys(TOOLS)) {
    await run('/bin/sh', ['-c', `command -v ${tool}`]).catch(() => missing.push(tool));
  }
  if (missing.length === 0) return ok(`all ${Object.keys(TOOLS).length} are installed`);
  const packages = new Set(missing.map(tool => TOOLS[tool]));
  return failure(`missing: ${missing.join(', ')}`, `apt-get install ${[...packages].join(' ')}`);
}

async function clock(): Promise<Look> {
  const source = readFileSync(
    '/sys/devices/system/clocksource/clocksource0/current_clocksource',
    'utf8',
  ).trim();
  if (FAST_CLOCKS.includes(source)) return ok(source);
  const remedy = 'See in the kernel’s log why it left tsc; each reading of the time costs a system call now.';
  return warning(`${source}, which is slow to read`, remedy);
}

/** Since 5.11 memory of BPF maps is charged to the cgroup, and RLIMIT_MEMLOCK does not count. */
async function lockedMemory(): Promise<Look> {
  const limit = memoryLimit();
  if (limit === undefined) return ok('no limit of the cgroup; the log is not charged to RLIMIT_MEMLOCK');
  return warning(
    `the cgroup may use ${Math.floor(limit / 2 ** 20)} MiB, log and guests included`,
    'Raise memory.max of the cgroup in which the supervisor is started, or start it outside.',
  );
}

/** `memory.max` of this process's cgroup, bytes; undefined for none, or one that cannot be seen. */
function memoryLimit(): number | undefined {
  try {
    const path = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
    const limit = Number(readFileSync(`/sys/fs/cgroup${path}/memory.max`, 'utf8'));
    return Number.isFinite(limit) ? limit : undefined;
  } catch {
    return undefined;
  }
}
