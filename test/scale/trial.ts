import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import type { FlowVerdict } from '../../hypervisor-shim/replay/replayer.js';
import { EventLog } from '../../supervisor/events/event-log.js';
import { verdictEvent } from '../../supervisor/recovery/recovery.js';
import { forgetFlows } from '../bench/bench-host.js';
import { CrowdClient } from '../bench/crowd-client.js';
import { type Cost, withCosts } from '../bench/measure.js';
import { namespacePids } from '../lib/namespaces.js';
import { sleep } from '../lib/run.js';
import { NetnsBed } from '../netns/lib/bed.js';
import {
  type Cpu,
  difference,
  type Memory,
  openSockets,
  readCpu,
  readMemory,
  readResident,
  resetPeak,
} from './readings.js';

export type Kind = 'idle' | 'busy';

/** One recovery of so many connections. */
export interface Trial {
  /** Decision to last splice. */
  ms: number;
  /** As many new connections, and the same answer on each, to a guest that is warm. */
  freshMs: number;
  cpu: Cpu;
  /** Of the supervisor's process without the log that it maps, bytes; and how much more than before the recovery. */
  peakRss: number;
  peakRssRise: number;
  /** All of the recovery's events are in the event log, ms after the last splice. */
  journalledMs: number;
  load: number;
}

const PORT = 80;
const ANSWER_BYTES = 1024;
/** Handshakes at once: what any listener's backlog holds. */
const WIDTH = 256;
/** Between two requests of a busy connection, and how long they go on before the fault: all of it is replayed. */
const PACE_MS = 100;
const BUSY_MS = 1000;
/** Between the last new connection and the fault, so that nothing is left over of what came before. */
const REST_MS = 300;
const MAX_FLOWS = 16_384;
/** An idle connection has two small segments: input and captured output. */
const LOG_MIB = 512;

/** A service in two guests (namespaces), a crowd of clients before it, and the supervisor's event log beside it. */
export class Stage {
  private constructor(
    readonly bed: NetnsBed,
    private readonly crowd: CrowdClient,
    private readonly events: EventLog,
    private readonly root: string,
  ) {}

  static async create(tag: string): Promise<Stage> {
    const bed = await NetnsBed.create(tag, { ports: [PORT], logMiB: LOG_MIB, maxFlows: MAX_FLOWS });
    try {
      const root = `${bed.lab.dir}/www`;
      mkdirSync(root);
      writeFileSync(`${root}/1k`, Buffer.alloc(ANSWER_BYTES, 'k'));
      await bed.nginx(0, root);
      await bed.nginx(1, root);
      await bed.lab.exec(bed.client.name, ['sysctl', '-qw', 'net.ipv4.ip_local_port_range=2000 65000']);
      const crowd = CrowdClient.start(bed.lab, 'http', PORT, '/1k');
      return new Stage(bed, crowd, EventLog.open(`${bed.lab.dir}/events`), root);
    } catch (error) {
      await bed.dispose();
      throw error;
    }
  }

  private get guest(): string {
    return this.bed.guest(this.bed.active);
  }

  /** The next trial finds empty tables, a guest that has served nobody in reserve, and a rested replayer. */
  private async startAfresh(): Promise<void> {
    await this.crowd.reset();
    await sleep(50);
    await this.bed.reprotect(slot => this.bed.nginx(slot, this.root));
    forgetFlows(this.bed.path);
  }

  /** Opens, fails over, asks again on every connection. */
  async recover(count: number, kind: Kind, watch = () => {}): Promise<Trial> {
    const { bed, crowd } = this;
    const freshMs = await crowd.open(count, WIDTH);
    await sleep(REST_MS);
    if (kind === 'busy') {
      await crowd.busy(PACE_MS);
      await sleep(BUSY_MS);
    }
    const standby = await namespacePids(bed.guest(1 - bed.active));
    resetPeak();
    const before = readResident();
    const cpu = readCpu(standby);
    const decided = performance.timeOrigin + performance.now();
    const recovering = bed.failover(60_000, verdicts => this.tell(verdicts));
    watch();
    const { verdicts } = await recovering;
    const journalled = performance.timeOrigin + performance.now();
    const used = difference(readCpu(standby), cpu);
    const { peak } = readResident();
    const spliced = verdicts.filter(v => v.reason === 'spliced');
    if (spliced.length !== count) throw new Error(`${spliced.length} of ${count} were kept`);
    if (kind === 'busy') await crowd.quiet();
    await crowd.ask();
    await this.startAfresh();
    const last = spliced.reduce((latest, v) => Math.max(latest, v.at), 0);
    return {
      ms: last - decided,
      freshMs,
      cpu: used,
      peakRss: before.own + peak - before.now,
      peakRssRise: peak - before.now,
      journalledMs: journalled - last,
      load: load(),
    };
  }

  private tell(verdicts: FlowVerdict[]): void {
    const { epoch } = this.bed.path.control.slots(this.bed.active);
    this.events.appendAll(
      'scale',
      verdicts.map(verdict => verdictEvent(verdict, epoch)),
    );
  }

  /** What the programs cost in a recovery, apart from the others, since measuring costs too. */
  async costs(count: number): Promise<Record<string, Cost>> {
    const programs = ['from_wire', 'from_guest', 'from_replay', 'control_flow'];
    const fds = Object.fromEntries(programs.map(name => [name, this.bed.path.fd(name)]));
    return withCosts(fds, () => this.recover(count, 'idle'));
  }

  /** Memory with so many idle connections, and the most sockets that the replay added. */
  async memory(count: number): Promise<Memory & { replaySockets: number }> {
    const { bed, crowd } = this;
    if (count > 0) await crowd.open(count, WIDTH);
    await sleep(500); // what was closed before is freed after a grace period
    const memory = await readMemory(bed.path, this.guest);
    await crowd.reset();
    let most = 0;
    if (count > 0) {
      await this.startAfresh();
      let timer: NodeJS.Timeout | undefined;
      let first = 0;
      await this.recover(count, 'idle', () => {
        first = openSockets();
        timer = setInterval(() => {
          most = Math.max(most, openSockets() - first);
        }, 5);
      }).finally(() => clearInterval(timer));
    } else await this.startAfresh();
    return { ...memory, replaySockets: Math.max(0, most - count) };
  }

  async dispose(): Promise<void> {
    await this.crowd.stop();
    await this.events.close();
    await this.bed.dispose();
  }
}

const load = (): number => Number(loadavg()[0]!.toFixed(1));
