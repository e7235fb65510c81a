import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { mountedOver } from '../../hypervisor-shim/libvirt/daemon-config.js';
import { run, sleep } from './run.js';

const BPFFS = '/sys/fs/bpf';
const SHM = '/dev/shm';

export interface LeftoverOptions {
  /** State directory of a supervisor: QEMU and libvirt processes that name it count. Default: the lab's directory. */
  stateDir?: string;
}

/**
 * What a finished run of lab `tag` left on the machine, one line each; empty means clean. Only what bears the tag counts:
 * others may work on the same machine.
 */
export async function leftovers(tag: string, options: LeftoverOptions = {}): Promise<string[]> {
  const stateDir = options.stateDir ?? `/tmp/holdfast-lab-${tag}`;
  const namespaces = (await run(['ip', 'netns', 'list'])).stdout.split('\n').map(line => line.split(' ')[0]!);
  const links = (await run(['ip', '-o', 'link', 'show'])).stdout.split('\n');
  return [
    ...namespaces.filter(name => name.startsWith(`hf-${tag}-`)).map(name => `namespace ${name}`),
    ...links.flatMap(line => /^\d+: (hf[^:@]*)/.exec(line)?.[1] ?? []).map(name => `device ${name}`),
    ...markedFiles(tag).map(path => `file ${path}`),
    ...hypervisorProcesses(stateDir),
    ...(await mountPoints()).map(path => `mount point ${path}`),
  ];
}

/** How long one that is starting or ending may leave them so, ms. */
const MOUNT_POINTS_MS = 10_000;

/** Empty directories over which a private libvirtd mounts its own, and that none uses: those that stay so. */
async function mountPoints(): Promise<string[]> {
  let unused = unusedMountPoints();
  for (const deadline = Date.now() + MOUNT_POINTS_MS; unused.length > 0 && Date.now() < deadline; ) {
    await sleep(500);
    const again = unusedMountPoints();
    unused = unused.filter(path => again.includes(path));
  }
  return unused;
}

function unusedMountPoints(): string[] {
  const used = new Set(readdirSync('/proc').flatMap(pid => (/^\d+$/.test(pid) ? mountsOf(pid) : [])));
  return Object.values(mountedOver).filter(path => isEmpty(path) && !used.has(path));
}

function mountsOf(pid: string): string[] {
  try {
    const lines = readFileSync(`/proc/${pid}/mountinfo`, 'latin1').split('\n');
    return lines.map(line => line.split(' ')[4] ?? '');
  } catch {
    return [];
  }
}

function isEmpty(path: string): boolean {
  try {
    return readdirSync(path).length === 0;
  } catch {
    return false;
  }
}

/** Shm files, and all pins of services, whose name carries `tag` as a word. A service's pins have names that are everybody's. */
function markedFiles(tag: string): string[] {
  const marked = new RegExp(`(^|[-_.])${tag}($|[-_.])`);
  return [...services().flatMap(pinsOf), ...shmFiles()].filter(path => marked.test(serviceOf(path)));
}

/** Sweeps up after an interrupted run of lab `tag`. */
export function removeMarkedFiles(tag: string): void {
  for (const path of markedFiles(tag)) rmSync(path, { recursive: true, force: true });
}

function shmFiles(): string[] {
  return list(SHM).filter(path => basename(path).startsWith('holdfast'));
}

/** Directories of pins, one for each service; and those of tests, beside them. */
function services(): string[] {
  const tops = list(BPFFS).filter(path => basename(path).startsWith('holdfast'));
  return tops.flatMap(top => (basename(top) === 'holdfast' ? list(top) : [top]));
}

/** Deepest first, so that removing them in order empties directories before their own turn. */
function pinsOf(path: string): string[] {
  return [...(isDirectory(path) ? list(path).flatMap(pinsOf) : []), path];
}

/** Of a file, or of a pin, the name that a lab may have given. */
function serviceOf(path: string): string {
  const [first, second] = path.slice((path.startsWith(SHM) ? SHM : BPFFS).length + 1).split('/');
  return first === 'holdfast' && second !== undefined ? second : first!;
}

function hypervisorProcesses(stateDir: string): string[] {
  const found: string[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    try {
      const argv = readFileSync(`/proc/${entry}/cmdline`, 'latin1').split('\0');
      if (!/qemu|libvirt|virtlog/.test(argv[0]!)) continue;
      // a private libvirtd is told nothing of the state directory: parts of it are mounted over its own
      const mounts = () => readFileSync(`/proc/${entry}/mountinfo`, 'latin1');
      if (!argv.some(word => word.includes(stateDir)) && !mounts().includes(stateDir)) continue;
      found.push(`process ${entry}: ${argv.join(' ').slice(0, 160).trim()}`);
    } catch {
      // ended while we looked
    }
  }
  return found;
}

function list(dir: string): string[] {
  try {
    return readdirSync(dir).map(name => join(dir, name));
  } catch {
    return [];
  }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
