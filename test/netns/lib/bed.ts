import type { ChildProcess } from 'node:child_process';
import { openSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { addressBytes } from '../../../hypervisor-shim/datapath/addresses.js';
import { DataPath } from '../../../hypervisor-shim/datapath/datapath.js';
import { native } from '../../../hypervisor-shim/native/native.js';
import { macBytes } from '../../../hypervisor-shim/replay/namespace.js';
import { type FlowVerdict, Replayer } from '../../../hypervisor-shim/replay/replayer.js';
import { Spiller } from '../../../hypervisor-shim/spill/spiller.js';
import { BRIDGE, Lab, SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../../lib/lab.js';
import { run, waitFor } from '../../lib/run.js';
import { ensureBpffs } from './bpffs.js';

export const GUEST_MAC = '02:48:46:00:00:10';
const GUEST_DEV = 'eth0';
/** The namespace in which the test was started; a path that stays good after this thread has left it. */
const HOME = `/proc/self/fd/${openSync('/proc/self/ns/net', 'r')}`;

export interface BedOptions {
  ports: number[];
  compare?: 'sampled' | 'full';
  logMiB?: number;
  onFull?: 'backpressure' | 'unprotected';
  perConnectionMiB?: number;
  maxFlows?: number;
  clients?: number;
  /** The log is spilled, to so many MiB of files. */
  spillMiB?: number;
}

export interface RecoveryResult {
  fenced: boolean;
  verdicts: FlowVerdict[];
  /** From the decision (before the fence) to the end of the replay, ms. */
  ms: number;
}

/**
 * The whole data path and recovery without a VM: a guest is a network namespace whose veth stands in for the tap, its
 * service a real process in it. The test's own main thread moves into the laboratory's host namespace.
 *
 *   client ns --- br0 --- svc [SSW] --- tap0 --- guest ns 0
 *                                   \-- tap1 --- guest ns 1      (same MAC, same address)
 */
export class NetnsBed {
  private epoch = 0;
  active = 0;
  private replayer: Replayer | undefined;
  spiller: Spiller | undefined;
  private readonly services: ChildProcess[][] = [[], []];
  readonly path: DataPath;
  readonly taps: number[];

  private constructor(
    readonly lab: Lab,
    path: DataPath,
    taps: number[],
    private readonly spillMiB: number | undefined,
  ) {
    this.path = path;
    this.taps = taps;
  }

  get client() {
    return this.lab.clients[0]!;
  }

  static async create(tag: string, o: BedOptions): Promise<NetnsBed> {
    await ensureBpffs();
    const lab = await Lab.create(tag, { clients: o.clients ?? 1 });
    const pins = `/sys/fs/bpf/holdfast/${tag}`;
    DataPath.remove(pins);
    try {
      native.enterNetns(`/run/netns/${lab.host}`);
      const svc = await veth('svc', 'svcp');
      await run(['ip', 'link', 'set', 'svcp', 'master', BRIDGE, 'up']);
      const taps = [];
      for (const slot of [0, 1]) taps.push(await makeGuest(tag, slot));
      const path = DataPath.create({
        pinDirectory: pins,
        address: addressBytes(SERVICE_ADDRESS),
        address6: addressBytes(SERVICE_ADDRESS6),
        ports: o.ports,
        guestMac: macBytes(GUEST_MAC),
        compare: o.compare ?? 'sampled',
        logMiB: o.logMiB ?? 64,
        onFull: o.onFull ?? 'backpressure',
        perConnectionMiB: o.perConnectionMiB,
        maxFlows: o.maxFlows ?? 4096,
      });
      path.attachWire(svc, await ifindex('svcp'));
      taps.forEach((tap, slot) => {
        path.attachGuest(slot, tap);
      });
      const bed = new NetnsBed(lab, path, taps, o.spillMiB);
      bed.path.activate(0, ++bed.epoch);
      bed.path.setListening(0, true);
      await bed.startSpiller();
      await bed.prepare();
      return bed;
    } catch (e) {
      native.enterNetns(HOME);
      DataPath.remove(pins);
      await lab.dispose();
      throw e;
    }
  }

  guest(slot: number): string {
    return guestNamespace(this.lab.tag, slot);
  }

  get spillDirectory(): string {
    return `${this.lab.dir}/spill`;
  }

  /** Lets the log be spilled, if it is to be: at the start, and by a successor after `stopSpiller`. */
  async startSpiller(): Promise<void> {
    const { spillMiB: sizeMiB, spillDirectory: directory } = this;
    if (sizeMiB !== undefined) this.spiller = await Spiller.start(this.path, { directory, sizeMiB });
  }

  async stopSpiller(): Promise<void> {
    await this.spiller?.stop();
    this.spiller = undefined;
  }

  /** Starts a service process in a guest and waits until it listens on all given ports. */
  async serve(slot: number, argv: string[], ports: number[]): Promise<void> {
    this.services[slot]!.push(
      this.lab.spawn(this.guest(slot), argv, { stdio: ['ignore', 'ignore', 'inherit'] }),
    );
    await waitFor(`${argv[0]} to listen in guest ${slot}`, 20_000, async () => {
      const { stdout } = await this.lab.exec(this.guest(slot), ['ss', '-Hltn']);
      return ports.every(port => new RegExp(`:${port}\\s`).test(stdout)) || undefined;
    });
  }

  /** nginx with this document root, its processes in a guest. */
  async nginx(slot: number, root: string): Promise<void> {
    const dir = join(this.lab.dir, `nginx${slot}`);
    const conf = `${dir}.conf`;
    writeFileSync(
      conf,
      `daemon off; user root; worker_processes 1; worker_rlimit_nofile 20000; pid ${dir}.pid; error_log ${dir}.log;
       events { worker_connections 16384; }
       http { access_log off; sendfile on; keepalive_requests 1000000; keepalive_timeout 1h;
         client_body_temp_path ${dir}-b; proxy_temp_path ${dir}-p; fastcgi_temp_path ${dir}-f;
         uwsgi_temp_path ${dir}-u; scgi_temp_path ${dir}-s;
         server { listen 80 backlog=4096; listen [::]:80 backlog=4096; root ${root}; } }`,
    );
    await this.serve(slot, ['nginx', '-c', conf, '-p', this.lab.dir], [80]);
  }

  /** Kills the services of a guest: its kernel, which lives on, closes their connections. */
  async endServices(slot: number): Promise<void> {
    for (const child of this.services[slot]!.splice(0)) await this.lab.stop(child, 0);
  }

  async prepare(masks: string[] = ['http-date']): Promise<void> {
    await this.replayer?.dispose();
    this.replayer = await Replayer.prepare(this.path, {
      namespace: `hf-${this.lab.tag}-r`,
      device: 'rp',
      address: SERVICE_ADDRESS,
      address6: SERVICE_ADDRESS6,
      guestMac: GUEST_MAC,
      masks,
      spillDirectory: this.spillMiB === undefined ? undefined : this.spillDirectory,
    });
  }

  /** A fault of the active guest: it is fenced, the other one takes over, every connection is replayed into it. */
  async failover(deadlineMs = 30_000, tell?: (verdicts: FlowVerdict[]) => void): Promise<RecoveryResult> {
    const started = performance.now();
    const next = 1 - this.active;
    this.path.fence(this.active);
    this.path.activate(next, ++this.epoch);
    this.path.setListening(next, true);
    this.active = next;
    if (tell) this.replayer!.on('verdicts', tell);
    const result = await this.replayer!.recover({
      slot: next,
      epoch: this.epoch,
      guestIfindex: this.taps[next]!,
      deadlineMs,
    });
    return { ...result, ms: performance.now() - started };
  }

  /** The other guest takes new connections, and the one before serves what it has: returns its slot. */
  switchOver(): number {
    const from = this.active;
    this.active = 1 - from;
    this.path.activate(this.active, ++this.epoch);
    this.path.setListening(this.active, true);
    return from;
  }

  /** Replays flows that came up after the failover, of handshakes whose last ACK was late: what the supervisor's janitor does. */
  async replayLate(deadlineMs = 30_000, gentle = false): Promise<FlowVerdict[]> {
    await this.prepare();
    const { verdicts } = await this.replayer!.recover({
      slot: this.active,
      epoch: this.epoch,
      guestIfindex: this.taps[this.active]!,
      deadlineMs,
      gentle,
    });
    return verdicts;
  }

  /** A fresh guest in place of the dead one, and a fresh replayer: what re-protection does. */
  async reprotect(start: (slot: number) => Promise<void>, masks?: string[]): Promise<void> {
    const slot = 1 - this.active;
    this.path.detachGuest(slot);
    await this.endServices(slot);
    await run(['ip', 'netns', 'del', this.guest(slot)]);
    await run(['ip', 'link', 'del', `tap${slot}`], { allowFailure: true });
    this.taps[slot] = await makeGuest(this.lab.tag, slot);
    this.path.attachGuest(slot, this.taps[slot]!);
    await start(slot);
    await this.prepare(masks);
  }

  async dispose(): Promise<void> {
    await this.replayer?.dispose();
    await this.stopSpiller();
    this.path.close();
    DataPath.remove(this.path.pinDirectory);
    native.enterNetns(HOME);
    await this.lab.dispose();
    rmSync(this.lab.dir, { recursive: true, force: true });
  }
}

const guestNamespace = (tag: string, slot: number): string => `hf-${tag}-g${slot}`;

/** A guest's namespace and its end of the "tap"; returns the outer end's ifindex. */
async function makeGuest(tag: string, slot: number): Promise<number> {
  const guest = guestNamespace(tag, slot);
  await run(['ip', 'netns', 'add', guest]);
  const tap = await veth(`tap${slot}`, GUEST_DEV, guest);
  for (const words of [
    `link set ${GUEST_DEV} address ${GUEST_MAC}`,
    `addr add ${SERVICE_ADDRESS}/24 dev ${GUEST_DEV}`,
    `-6 addr add ${SERVICE_ADDRESS6}/64 dev ${GUEST_DEV} nodad`,
    `link set ${GUEST_DEV} up`,
    'link set lo up',
  ])
    await run(['ip', '-n', guest, ...words.split(' ')]);
  return tap;
}

/** A veth pair, its outer end up in this namespace; returns the outer end's ifindex. */
async function veth(outer: string, inner: string, namespace?: string): Promise<number> {
  await run([
    'ip',
    'link',
    'add',
    outer,
    'type',
    'veth',
    'peer',
    'name',
    inner,
    ...(namespace ? ['netns', namespace] : []),
  ]);
  await run(['sysctl', '-qw', `net.ipv6.conf.${outer}.disable_ipv6=1`]);
  await run(['ip', 'link', 'set', outer, 'up']);
  return ifindex(outer);
}

async function ifindex(device: string): Promise<number> {
  return JSON.parse((await run(['ip', '-j', 'link', 'show', device])).stdout)[0].ifindex;
}
