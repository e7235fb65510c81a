import { mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { OP, RESULT, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { macBytes } from '../../hypervisor-shim/replay/namespace.js';
import { BRIDGE, Lab, SERVICE_ADDRESS } from '../lib/lab.js';
import { repositoryRoot, run, waitFor } from '../lib/run.js';
import { ensureBpffs } from '../netns/lib/bpffs.js';
import type { Target } from './loads.js';

export const GUEST_MAC = '02:48:46:00:00:10';
/** Uploads are logged whole, and tens of thousands of short connections linger until a run's end. */
const LOG_MIB = 1024;
const MAX_FLOWS = 65_536;

/** The namespace in which the benchmark was started; the main thread goes back there before a laboratory is removed. */
const HOME = `/proc/self/fd/${openSync('/proc/self/ns/net', 'r')}`;
export const goHome = (): void => native.enterNetns(HOME);

/** How frames get from the client's bridge to the guest's tap. */
export type Way = 'plain' | 'protected' | 'redirect';

/**
 * One guest's tap, which lies either on the client's bridge itself or behind the data path:
 *
 *   plain       client --- br0 --- tap --- guest
 *   protected   client --- br0 --- svcp [from_wire] --- [from_guest] tap --- guest
 *   redirect    as protected, with programs that only redirect
 */
export class BenchHost {
  private port = 0;
  private tapIndex = 0;
  private redirects: { toGuest: number; toWire: number } | undefined;
  way: Way | undefined;

  private constructor(
    readonly lab: Lab,
    readonly path: DataPath,
  ) {}

  get client() {
    return this.lab.clients[0]!;
  }

  /** The laboratory, the service's veth and the data path; the main thread is in the host namespace afterwards. */
  static async create(tag: string, ports: number[]): Promise<BenchHost> {
    await ensureBpffs();
    const lab = await Lab.create(tag);
    const pinDirectory = pinsOf(tag);
    DataPath.remove(`${pinDirectory}-redirect`);
    DataPath.remove(pinDirectory);
    try {
      await lab.exec(lab.clients[0]!.name, ['sysctl', '-qw', 'net.ipv4.ip_local_port_range=2000 65000']);
      native.enterNetns(`/run/netns/${lab.host}`);
      const path = DataPath.create({
        pinDirectory,
        address: Uint8Array.from(SERVICE_ADDRESS.split('.'), Number),
        ports,
        guestMac: macBytes(GUEST_MAC),
        compare: 'sampled',
        logMiB: LOG_MIB,
        maxFlows: MAX_FLOWS,
      });
      const host = new BenchHost(lab, path);
      await ip('link add svc type veth peer name svcp');
      await silence('svc', 'svcp');
      await ip('link set svc up');
      await ip('link set svcp up');
      return host;
    } catch (error) {
      goHome();
      DataPath.remove(pinDirectory);
      await lab.dispose();
      throw error;
    }
  }

  /** Makes the guest's device, called `tap`, known to the data path. */
  async attach(): Promise<void> {
    await silence('tap');
    await ip('link set tap up');
    this.port = await ifindex('svcp');
    this.tapIndex = await ifindex('tap');
    this.path.attachWire(await ifindex('svc'), this.port);
    this.path.attachGuest(0, this.tapIndex);
    this.path.activate(0, 1);
    this.path.setListening(0, true);
  }

  /** Programs that do nothing but redirect. */
  async loadRedirects(): Promise<void> {
    const pins = `${this.path.pinDirectory}-redirect`;
    const object = join(this.lab.dir, 'redirect.o');
    await run([
      ...['clang', '-O2', '-g', '-target', 'bpf', `-DTAP=${this.tapIndex}`, `-DPORT=${this.port}`],
      ...[`-I/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`],
      ...['-c', join(repositoryRoot(), 'test/bench/redirect.bpf.c'), '-o', object],
    ]);
    mkdirSync(pins);
    native.bpfLoad(object, pins, {});
    this.redirects = { toGuest: native.bpfGet(`${pins}/to_guest`), toWire: native.bpfGet(`${pins}/to_wire`) };
  }

  /** Program that a frame from the client, or from the guest, passes in the present way. */
  program(from: 'wire' | 'guest'): number {
    if (this.way === 'redirect') return from === 'wire' ? this.redirects!.toGuest : this.redirects!.toWire;
    return this.path.fd(from === 'wire' ? 'from_wire' : 'from_guest');
  }

  /** Changes the way and resolves when both services answer over it; one that does not take is diagnosed on standard error. */
  async take(way: Way, target: Target, timeoutMs = 20_000): Promise<void> {
    this.forgetFlows();
    if (way === this.way) return;
    try {
      await this.change(way, target, timeoutMs);
    } catch (error) {
      process.stderr.write(`${(error as Error).message}\n${await this.diagnosis()}\n`);
      throw error;
    }
  }

  private async change(way: Way, target: Target, timeoutMs: number): Promise<void> {
    this.way = undefined;
    for (const device of ['svcp', 'tap'])
      await run(['tc', 'qdisc', 'del', 'dev', device, 'clsact'], { allowFailure: true });
    const [onBridge, off] = way === 'plain' ? ['tap', 'svcp'] : ['svcp', 'tap'];
    await ip(`link set ${off} nomaster`); // the bridge forgets the addresses that it learned there
    await ip(`link set ${onBridge} master ${BRIDGE}`);
    this.way = way;
    if (way !== 'plain') {
      native.tcAttach(this.port, this.program('wire'), true);
      native.tcAttach(this.tapIndex, this.program('guest'));
    }
    await waitFor(`answers over the ${way} way`, timeoutMs, async () => {
      const answered = (await this.answers(target.small)) && (await this.answers(target.sink, '-d', 'x'));
      return answered || undefined;
    });
  }

  /** Where frames stop, for whoever wants to know why nobody answers. */
  private async diagnosis(): Promise<string> {
    const tell = async (...argv: string[]) => (await run(argv, { allowFailure: true })).stdout;
    const neighbours = await this.lab.exec(this.client.name, ['ip', 'neigh'], { allowFailure: true });
    return [
      await tell('bridge', 'fdb', 'show', 'br', BRIDGE),
      await tell('ip', '-s', '-br', 'link'),
      await tell('tc', '-s', 'filter', 'show', 'dev', 'svcp', 'egress'),
      neighbours.stdout,
    ].join('\n');
  }

  private async answers(url: string, ...more: string[]): Promise<boolean> {
    const argv = ['curl', '-q', '-sf', '--max-time', '1', '-o', '/dev/null', ...more, url];
    return (await this.lab.exec(this.client.name, argv, { allowFailure: true })).code === 0;
  }

  /** A run starts with all of the table and of the log free. */
  forgetFlows(): void {
    forgetFlows(this.path);
  }

  async dispose(): Promise<void> {
    this.path.close();
    DataPath.remove(`${this.path.pinDirectory}-redirect`);
    DataPath.remove(this.path.pinDirectory);
    goHome();
    await this.lab.dispose();
  }
}

/** Frees what the last run left in the table and in the log. */
export function forgetFlows(path: DataPath): void {
  for (const { id, flow } of path.flows()) {
    if (flow.state !== STATE.CLOSED) path.transition(OP.CLOSE, id, flow.generation);
    while (path.transition(OP.REAP, id, flow.generation) === RESULT.AGAIN);
  }
}

const pinsOf = (tag: string): string => `/sys/fs/bpf/holdfast/${tag}`;

export const ip = (words: string) => run(['ip', ...words.split(' ')]);

async function silence(...devices: string[]): Promise<void> {
  for (const device of devices) await run(['sysctl', '-qw', `net.ipv6.conf.${device}.disable_ipv6=1`]);
}

async function ifindex(device: string): Promise<number> {
  return JSON.parse((await run(['ip', '-j', 'link', 'show', device])).stdout)[0].ifindex;
}
