import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { CONST, type Flow, OPTION, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { Capture } from '../lib/capture.js';
import { BRIDGE, type ClientNamespace, SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { run, sleep } from '../lib/run.js';
import { shiftTimestamps, TS_AHEAD } from '../lib/ts-shift.js';
import { NetnsBed } from '../netns/lib/bed.js';
import { Actor } from './actor-process.js';
import { type Effects, Injector, type Leg } from './injector.js';
import { type BedPlan, type ClientKind, disturbedLegs, nameOf } from './plan.js';
import { type Cut, FIRST_PORT, type Seen, STAGE_NAMES, STAGES, sends } from './stages.js';

const FIRST_CLIENT = 100;
/** Of the disturbed leg's frames. */
const SHARE = { loss: 1 / 32, duplication: 1 / 16, reordering: 1 / 16 };
const REACH_MS = 30_000;
const FINISH_MS = 60_000;
const JUMBO = '9000';

/** One connection: at a stage, of a client, under a disturbance. `why` is there if it was not as it should be. */
export interface Cell {
  stage: string;
  client: string;
  disturbance: string;
  clocks: string;
  why?: string;
}

interface Outcome {
  cells: Cell[];
  /** Sum over the disturbed legs. */
  effects: Effects;
  /** When all stages were reached, all connections replayed, all conversations ended; from the first connection on. */
  phases: { reachedMs: number; recoveredMs: number; finishedMs: number };
  /** Resets after the end of both streams. */
  lateResets: number;
}

export interface BedResult extends Outcome {
  seconds: number;
  leftovers: string[];
}

/** One connection of the laboratory. */
interface Connection {
  stage: string;
  stageNumber: number;
  client: number;
  address: string;
  service: string;
  arranged: boolean;
  reached: boolean;
  why?: string;
}

class Sweep {
  private readonly connections: Connection[];
  private lateResets = 0;
  private arranging = false;
  private readonly started = performance.now();

  private constructor(
    private readonly bed: NetnsBed,
    private readonly injector: Injector,
    private readonly plan: BedPlan,
    private readonly clients: Actor[],
    private readonly servers: Actor[],
  ) {
    this.connections = STAGE_NAMES.flatMap((stage, stageNumber) =>
      plan.clients.map((kind, client) => ({
        stage,
        stageNumber,
        client,
        address: addressOf(bed.lab.clients[client]!, kind),
        service: serviceOf(kind),
        arranged: false,
        reached: false,
      })),
    );
  }

  static async build(bed: NetnsBed, injector: Injector, plan: BedPlan): Promise<Sweep> {
    const { lab } = bed;
    for (const dev of [BRIDGE, 'svc', 'svcp', 'tap0', 'tap1', ...lab.clients.map((_, i) => `c${i}`)]) {
      await run(['ip', 'link', 'set', dev, 'mtu', JUMBO]);
    }
    const guests = [0, 1].map(async slot => {
      const [address, address6] = [SERVICE_ADDRESS, SERVICE_ADDRESS6];
      const guest = { name: bed.guest(slot), dev: 'eth0', address, address6 };
      await lab.exec(guest.name, ['ip', 'link', 'set', guest.dev, 'mtu', JUMBO]);
      await lab.exec(guest.name, ['sysctl', '-qw', 'net.ipv4.tcp_rmem=4096 131072 131072']);
      const clock = plan.clocks.guests[slot]!;
      if (clock) await shiftTimestamps(lab, guest, clock);
      const place = { namespace: guest.name, device: guest.dev, inward: 'ingress' } as const;
      await injector.attach(`guest${slot}` as Leg, place);
    });
    const kinds = plan.clients.map(async (kind, i) => {
      await injector.attach(`client${i}` as Leg, { namespace: lab.host, device: `c${i}`, inward: 'ingress' });
      await makeClient(bed, i, kind);
    });
    const replay = { namespace: `hf-${lab.tag}-r`, device: 'rpn', inward: 'egress' } as const;
    await Promise.all([...guests, ...kinds, injector.attach('replay', replay)]);
    const clients = await Promise.all(
      lab.clients.map((c, i) => Actor.start(bed, c.name, 'client', serviceOf(plan.clients[i]!))),
    );
    const servers = await Promise.all(
      ['first', 'second'].map((word, slot) => Actor.start(bed, bed.guest(slot), 'server', word)),
    );
    return new Sweep(bed, injector, plan, clients, servers);
  }

  async run(): Promise<Outcome> {
    const { bed, injector, plan } = this;
    const captures = await Promise.all(bed.lab.clients.map(c => Capture.start(bed.lab, c)));
    const { kind } = plan.disturbance;
    const legs = disturbedLegs(plan.disturbance);
    for (const leg of legs) injector.disturb(leg, kind!, SHARE[kind!], plan.seed);
    await this.reachAll();
    const reachedMs = this.elapsed();
    this.checkOptions();
    const { verdicts } = await bed.failover();
    for (const v of verdicts) {
      if (v.outcome === 'lost') this.blame(v.port - FIRST_PORT, hostOf(v.client), `lost: ${v.reason}`);
    }
    const recoveredMs = this.elapsed();
    injector.mend();
    for (const client of this.clients) client.tell({ open: 'go' });
    await this.finish();
    const phases = { reachedMs, recoveredMs, finishedMs: this.elapsed() };
    await Promise.all(captures.map(c => c.stop()));
    for (const [i, capture] of captures.entries()) this.countResets(capture, i);
    const kept = process.env.HOLDFAST_TEST_KEEP;
    if (kept && this.connections.some(c => c.why)) {
      for (const { file, point } of captures) copyFileSync(file, join(kept, `${point.name}.pcap`));
    }
    const cells = this.connections.map(c => ({
      stage: c.stage,
      client: nameOf(plan.clients[c.client]!),
      disturbance: plan.disturbance.name,
      clocks: plan.clocks.name,
      ...(c.why && { why: c.why }),
    }));
    const effects = { seen: 0, lost: 0, doubled: 0, held: 0 };
    for (const leg of legs) {
      const of = injector.effects(leg);
      for (const name of Object.keys(effects) as (keyof Effects)[]) effects[name] += of[name];
    }
    return { cells, effects, phases, lateResets: this.lateResets };
  }

  /**
   * A reset that comes when both streams have ended whole at both ends is the guest's kernel's own: a second ACK of its
   * FIN (of a doubled frame, or of a FIN sent twice) finds no socket any more, as it would without us.
   */
  private countResets(capture: Capture, client: number): void {
    const ports = STAGE_NAMES.map((_, i) => FIRST_PORT + i);
    const trace = capture.trace(ports);
    for (const reset of trace.resets) {
      const port = Number(reset.from.slice(reset.from.lastIndexOf(':') + 1));
      const of = this.connections.find(c => c.stageNumber === port - FIRST_PORT && c.client === client);
      if (!of || hostOf(reset.from) !== of.service) continue;
      const wire = trace.connections.find(c => c.serverPort === port);
      if (!of.why && wire?.toClient.fins && wire.toServer.fins) this.lateResets++;
      else this.blame(of.stageNumber, of.address, 'reset by the service');
    }
    for (const wire of trace.connections) {
      const of = this.connections.find(
        c => c.stageNumber === wire.serverPort - FIRST_PORT && c.client === client,
      );
      if (of && wire.reconnects) this.blame(of.stageNumber, of.address, 'connected again');
    }
  }

  private blame(stage: number, address: string, why: string): void {
    const c = this.connections.find(one => one.stageNumber === stage && one.address === address);
    if (c) c.why = c.why ? `${c.why}; ${why}` : why;
  }

  private elapsed(): number {
    return Math.round(performance.now() - this.started);
  }

  /** The flows' records, by connection. */
  private flows(): Map<string, Flow> {
    const flows = new Map<string, Flow>();
    for (const { flow } of this.bed.path.flows()) {
      const stage = (((flow.key.lport & 0xff) << 8) | (flow.key.lport >>> 8)) - FIRST_PORT;
      const client = flow.key.bytes[15]! - (flow.key.family === 4 ? FIRST_CLIENT : 0);
      if (flow.state !== STATE.CLOSED) flows.set(`${stage}/${client}`, flow);
    }
    return flows;
  }

  /** Those that stand still by themselves first: a client that is cut off soon waits longer and longer to send again. */
  private async reachAll(): Promise<void> {
    const isCut = (c: Connection): boolean => STAGES[c.stage]!.cut !== undefined;
    const start = (c: Connection): void => this.clients[c.client]!.tell({ start: c.stage });
    for (const c of this.connections) if (!isCut(c)) start(c);
    await this.reach(this.connections.filter(c => !isCut(c) && !STAGES[c.stage]!.arrange));
    this.arranging = true;
    for (const c of this.connections.filter(isCut)) {
      this.cut(c, STAGES[c.stage]!.cut!);
      start(c);
    }
    await this.reach(this.connections);
  }

  private cut(c: Connection, { leg, way, what }: Cut): void {
    const one = leg === 'client' ? (`client${c.client}` as Leg) : leg;
    this.injector.cut(one, way, c.stageNumber, c.client, what);
  }

  private async reach(which: Connection[]): Promise<void> {
    const deadline = performance.now() + REACH_MS;
    for (;;) {
      const flows = this.flows();
      for (const c of which) this.look(c, flows.get(`${c.stageNumber}/${c.client}`));
      const left = which.filter(c => !c.reached);
      if (left.length === 0) return;
      if (performance.now() > deadline) {
        for (const c of left) c.why ??= `the stage was not reached: ${this.describe(c)}`;
        return;
      }
      await sleep(10);
    }
  }

  private seen(c: Connection, flow: Flow | undefined): Seen {
    return {
      flow,
      client: this.clients[c.client]!.gates(`${c.stage}/${c.service}`),
      server: this.servers[0]!.gates(`${c.stage}/${c.address}`),
      cut: this.injector.cutFrames(c.stageNumber, c.client),
    };
  }

  private look(c: Connection, flow: Flow | undefined): void {
    const stage = STAGES[c.stage]!;
    const seen = this.seen(c, flow);
    if (stage.arrange && this.arranging && !c.arranged && stage.arrange.when(seen)) {
      const { cut, server, client } = stage.arrange;
      this.cut(c, cut);
      this.servers[0]!.tell({ open: server, stage: c.stage, peer: c.address });
      if (client) this.clients[c.client]!.tell({ open: client, stage: c.stage, peer: c.service });
      c.arranged = true;
    }
    c.reached = stage.reached(seen);
  }

  /** What the client negotiated is what the plan says: else the cell would be another one. */
  private checkOptions(): void {
    const flows = this.flows();
    for (const c of this.connections) {
      const flow = flows.get(`${c.stageNumber}/${c.client}`);
      if (!flow) continue;
      const kind = this.plan.clients[c.client]!;
      const is = {
        sack: (flow.client.flags & OPTION.SACK) !== 0,
        ts: (flow.client.flags & OPTION.TS) !== 0,
        wscale: flow.client.wscale === CONST.NO_WSCALE ? 'none' : flow.client.wscale,
        mss: flow.client.mss,
      };
      const be = { sack: kind.sack, ts: kind.timestamps !== 'none', wscale: kind.wscale, mss: kind.mss };
      if (JSON.stringify(is) !== JSON.stringify(be)) c.why = `negotiated ${JSON.stringify(is)}`;
    }
  }

  private async finish(): Promise<void> {
    const deadline = performance.now() + FINISH_MS;
    for (;;) {
      const left = this.connections.filter(c => this.result(c) === undefined);
      if (left.length === 0) break;
      if (performance.now() > deadline) {
        for (const c of left) this.blame(c.stageNumber, c.address, `not finished: ${this.describe(c)}`);
        break;
      }
      const held = [...this.bed.path.flows()].some(
        ({ flow }) => flow.state !== STATE.CLOSED && !this.bed.path.inCurrentEpoch(flow),
      );
      if (held) await this.bed.replayLate();
      await sleep(20);
    }
    for (const c of this.connections) {
      const why = this.result(c);
      if (why) this.blame(c.stageNumber, c.address, why);
    }
  }

  /** Undefined as long as an end has not finished; '' if both streams are whole at both ends. */
  private result(c: Connection): string | undefined {
    const client = this.clients[c.client]!.done.get(`${c.stage}/${c.service}`);
    const server = this.servers[1]!.done.get(`${c.stage}/${c.address}`);
    if (client?.error) return `client: ${client.error}`;
    if (server?.error) return `server: ${server.error}`;
    if (!client || !server) return undefined;
    const stage = STAGES[c.stage]!;
    if (client.sent !== sends(stage.client) || server.sent !== sends(stage.server)) return 'not all was sent';
    if (client.sentHash !== server.gotHash || server.sentHash !== client.gotHash) return 'digests differ';
    return '';
  }

  private describe(c: Connection): string {
    const flow = this.flows().get(`${c.stageNumber}/${c.client}`);
    const seen = this.seen(c, flow);
    const gates = `client at ${[...seen.client]}; first server at ${[...seen.server]}; cut ${seen.cut}`;
    if (!flow) return `${gates}; no flow`;
    const { state, in_end, g_ack, g_edge, out_sent, out_acked, g_snd_nxt, c_window, fin_in, fin_out } = flow;
    const shown = { state, in_end, g_ack, g_edge, out_sent, out_acked, g_snd_nxt, c_window, fin_in, fin_out };
    return `${gates}; ${Object.entries(shown)
      .map(([name, value]) => `${name} ${BigInt.asIntN(64, BigInt(value))}`)
      .join(' ')}`;
  }
}

const addressOf = (c: ClientNamespace, kind: ClientKind): string =>
  kind.family === 6 ? c.address6 : c.address;
const serviceOf = (kind: ClientKind): string => (kind.family === 6 ? SERVICE_ADDRESS6 : SERVICE_ADDRESS);

/** Of `address:port` or `[address]:port`. */
const hostOf = (end: string): string => end.slice(0, end.lastIndexOf(':')).replace(/[[\]]/g, '');

/** Gives a client namespace the options of its kind. */
async function makeClient(bed: NetnsBed, i: number, kind: ClientKind): Promise<void> {
  const { lab } = bed;
  const client = lab.clients[i]!;
  const receive = { none: 6291456, 0: 6291456, 7: 6291456, 14: 536870912 }[kind.wscale];
  // IPv6 wants 1280 at least
  const mtu = kind.family === 6 ? Math.max(1280, kind.mss + 60) : kind.mss + 40;
  await lab.exec(client.name, ['ip', 'link', 'set', client.dev, 'mtu', `${mtu}`]);
  await lab.exec(client.name, [
    ...['sysctl', '-qw'],
    `net.ipv4.tcp_sack=${kind.sack ? 1 : 0}`,
    `net.ipv4.tcp_timestamps=${kind.timestamps === 'none' ? 0 : 1}`,
    `net.ipv4.tcp_window_scaling=${kind.wscale === 'none' ? 0 : 1}`,
    `net.ipv4.tcp_rmem=4096 131072 ${receive}`,
  ]);
  // the scale follows from the largest window that the route allows
  const limits = ['advmss', `${kind.mss}`, ...(kind.wscale === 0 ? ['window', '65535'] : [])];
  const route =
    kind.family === 6
      ? ['-6', 'route', 'add', 'fd77::/64', 'dev', client.dev, 'metric', '1']
      : ['route', 'replace', '10.77.0.0/24', 'dev', client.dev, 'src', client.address];
  await lab.exec(client.name, ['ip', ...route, ...limits]);
  if (kind.timestamps === 'far') await shiftTimestamps(lab, client, TS_AHEAD);
}

/** Runs one laboratory of the plan from its making to its end. */
export async function sweepBed(tag: string, plan: BedPlan): Promise<BedResult> {
  const started = performance.now();
  const bed = await NetnsBed.create(tag, {
    ports: STAGE_NAMES.map((_, i) => FIRST_PORT + i),
    logMiB: 96,
    clients: plan.clients.length,
  });
  let result: Outcome;
  try {
    const injector = await Injector.create(bed.lab, FIRST_PORT, FIRST_CLIENT);
    try {
      result = await (await Sweep.build(bed, injector, plan)).run();
    } finally {
      injector.dispose();
    }
  } finally {
    await bed.dispose();
  }
  const seconds = (performance.now() - started) / 1000;
  return { ...result, seconds, leftovers: await leftovers(tag) };
}
