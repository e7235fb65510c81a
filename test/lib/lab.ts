import { type ChildProcess, execFileSync, type StdioOptions } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeMountPoints } from '../../hypervisor-shim/libvirt/daemon-launch.js';
import { type Disposable, disposeAtExit, settled } from './at-exit.js';
import { removeMarkedFiles } from './leftovers.js';
import { commandLine, inside, namespaceName, namespacePids, removeNamespaces } from './namespaces.js';
import { ProcessGroups, startTime } from './processes.js';
import { type RunOptions, type RunResult, run } from './run.js';

/**
 * A network of its own for one test: a host namespace with a bridge, where supervisor, libvirt, guests and taps run, and
 * client namespaces on that bridge.
 *
 *   hf-TAG-c0 (eth0 10.77.0.100) --- c0 |
 *   hf-TAG-c1 (eth0 10.77.0.101) --- c1 | br0 in hf-TAG-host        service: 10.77.0.10
 *
 * IPv6 beside IPv4: clients fd77::100, fd77::101, ..., service fd77::10.
 *
 * Commands enter by `nsenter --net`, not `ip netns exec`: the latter remounts /sys, which hides the BPF file system and
 * with it the pinned data path.
 */
export const SERVICE_ADDRESS = '10.77.0.10';
export const SERVICE_ADDRESS6 = 'fd77::10';
/** Of the first client namespace. */
export const CLIENT_ADDRESS = '10.77.0.100';
export const BRIDGE = 'br0';
const CLIENT_DEV = 'eth0';

export interface ClientNamespace {
  name: string;
  /** Its network device, IPv4 and IPv6 address. */
  dev: string;
  address: string;
  address6: string;
}

export class Lab implements Disposable {
  readonly host: string;
  readonly clients: ClientNamespace[] = [];
  /** Scratch directory, removed with the laboratory. Its path is short, for Unix sockets below it. */
  readonly dir: string;
  readonly #groups = new ProcessGroups();
  #disposed: Promise<void> | undefined;

  private constructor(readonly tag: string) {
    this.host = namespaceName(tag, 'host');
    this.dir = labDir(tag);
  }

  /** Sweeps what an interrupted run of this tag left, then builds. `tag`: up to 12 of a-z, 0-9. */
  static async create(tag: string, options: { clients?: number } = {}): Promise<Lab> {
    if (!/^[a-z0-9]{1,12}$/.test(tag)) throw new Error(`lab tag: 1 to 12 of a-z 0-9, not ${tag}`);
    await sweep(tag);
    const lab = new Lab(tag);
    mkdirSync(lab.dir, { mode: 0o700 });
    writeFileSync(lockFile(tag), `${process.pid} ${startTime(process.pid)}\n`);
    disposeAtExit(lab);
    try {
      await lab.#build(options.clients ?? 1);
    } catch (error) {
      await lab.dispose();
      throw error;
    }
    return lab;
  }

  async #build(clients: number): Promise<void> {
    await run(['ip', 'netns', 'add', this.host]);
    const bridge =
      'stp_state 0 forward_delay 0 mcast_snooping 0 nf_call_iptables 0 nf_call_ip6tables 0 nf_call_arptables 0';
    await this.#ip(this.host, `link add ${BRIDGE} type bridge ${bridge}`);
    for (const dev of ['lo', BRIDGE]) await this.#ip(this.host, `link set ${dev} up`);
    for (let i = 0; i < clients; i++) {
      const client = {
        name: namespaceName(this.tag, `c${i}`),
        dev: CLIENT_DEV,
        address: `10.77.0.${100 + i}`,
        address6: `fd77::${100 + i}`,
      };
      await run(['ip', 'netns', 'add', client.name]);
      // made in place, so that an interrupted run leaves no device in the root namespace
      await this.#ip(this.host, `link add c${i} type veth peer name ${client.dev} netns ${client.name}`);
      await this.#ip(this.host, `link set c${i} master ${BRIDGE} up`);
      await this.#ip(client.name, 'link set lo up');
      await this.#ip(client.name, `addr add ${client.address}/24 dev ${client.dev}`);
      await this.#ip(client.name, `-6 addr add ${client.address6}/64 dev ${client.dev} nodad`).catch(
        () => {},
      ); // no IPv6 here
      await this.#ip(client.name, `link set ${client.dev} up`);
      this.clients.push(client);
    }
    // sysctls of bridge netfilter are per namespace; absent where the module is not loaded
    for (const table of ['iptables', 'ip6tables', 'arptables'])
      await this.exec(this.host, ['sysctl', '-qw', `net.bridge.bridge-nf-call-${table}=0`], {
        allowFailure: true,
      });
  }

  #ip(namespace: string, words: string): Promise<RunResult> {
    return run(['ip', '-n', namespace, ...words.split(' ')]);
  }

  /** Runs a command inside a namespace to its end. */
  exec(namespace: string, argv: readonly string[], options?: RunOptions): Promise<RunResult> {
    return run(inside(namespace, argv), options);
  }

  /** Starts a command inside a namespace, as leader of its own process group; `child.pid` is the command itself. */
  spawn(
    namespace: string,
    argv: readonly string[],
    options?: { env?: NodeJS.ProcessEnv; cwd?: string; stdio?: StdioOptions },
  ): ChildProcess {
    return this.#groups.spawn(inside(namespace, argv), options);
  }

  /** SIGTERM, then SIGKILL after `graceMs`; only for what `spawn` gave. */
  stop(child: ChildProcess, graceMs?: number): Promise<void> {
    return this.#groups.stop(child, graceMs);
  }

  /** What runs or exists in the host namespace beyond the laboratory itself: empty once a supervisor is `down`. */
  async strays(): Promise<string[]> {
    const links = await run(['ip', '-n', this.host, '-o', 'link', 'show']);
    const own = new Set(['lo', BRIDGE, ...this.clients.map((_, i) => `c${i}`)]);
    const names = links.stdout.split('\n').flatMap(line => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? []);
    const pids = (await namespacePids(this.host)).filter(pid => !this.#groups.owns(pid));
    return [
      ...names.filter(name => !own.has(name)).map(name => `device ${name} in ${this.host}`),
      ...pids.map(pid => `process ${pid} in ${this.host}: ${commandLine(pid)}`),
    ];
  }

  /** Ends everything started here and removes the namespaces. Safe to call again. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#dispose();
    return this.#disposed;
  }

  async #dispose(): Promise<void> {
    await this.#groups.stopAll();
    await removeNamespaces(this.tag);
    await removeMountPoints();
    rmSync(this.dir, { recursive: true, force: true });
    settled(this);
  }

  disposeNow(): void {
    this.#groups.killAllNow();
    for (const name of [this.host, ...this.clients.map(client => client.name)]) {
      try {
        const pids = execFileSync('ip', ['netns', 'pids', name], { encoding: 'utf8' })
          .split(/\s+/)
          .filter(Boolean);
        for (const pid of pids) process.kill(Number(pid), 'SIGKILL');
        execFileSync('ip', ['netns', 'del', name]);
      } catch {
        // the next run of this tag sweeps what is left
      }
    }
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** What a supervisor, killed just now, had pinned. */
  sweepUp(): void {
    removeMarkedFiles(this.tag);
  }
}

/** Removes leftovers of an interrupted earlier run of `tag`; refuses while that run is still alive. */
export async function sweep(tag: string): Promise<void> {
  const [pid, started] = readLock(tag);
  if (pid !== undefined && startTime(pid) === started)
    throw new Error(`lab ${tag} is in use by process ${pid}; wait for it or choose another tag`);
  await removeNamespaces(tag);
  removeMarkedFiles(tag);
  await removeMountPoints();
  rmSync(labDir(tag), { recursive: true, force: true });
}

function readLock(tag: string): [pid: number | undefined, started: string | undefined] {
  try {
    const [pid, started] = readFileSync(lockFile(tag), 'utf8').trim().split(' ');
    return [Number(pid), started];
  } catch {
    return [undefined, undefined];
  }
}

const labDir = (tag: string): string => join('/tmp', `holdfast-lab-${tag}`);
const lockFile = (tag: string): string => join(labDir(tag), 'lock');
