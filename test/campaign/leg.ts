import { setTimeout as sleep } from 'node:timers/promises';
import { findImage } from '../lib/image.js';
import { Lab } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { boundReceiveBuffers, makeTraffic } from '../lib/load.js';
import { serviceConfig } from '../lib/scenario.js';
import { Supervisor } from '../lib/supervisor.js';
import { makeUploadBody } from '../lib/traffic.js';
import { FAULTS } from './faults.js';
import { type PlannedFault, random } from './plan.js';
import { type Outcome, Population } from './population.js';
import { ResetWatch } from './reset-watch.js';

/** Clients at work all the time, and how many of them must be busy when a fault comes. */
const CROWD = 28;
const BUSY = 20;
const BUSY_MS = 120_000;
const CLIENT_MS = 300_000;
const UPLOAD_BYTES = 24 << 20;

export interface FaultRecord {
  n: number;
  kind: PlannedFault['kind'];
  /** Connections open at the fault, and how many of them were in the middle of a transfer. */
  open: number;
  busy: number;
  /** From the fault until the service was protected again, ms; undefined if it never was. */
  protectedMs: number | undefined;
  error?: string;
}

/** A laboratory, its service, and its crowd of clients, for several faults in a row. */
export class Leg {
  private constructor(
    private readonly tag: string,
    private readonly lab: Lab,
    private readonly supervisor: Supervisor,
    private readonly resets: ResetWatch,
    private readonly population: Population,
    /** What was there before: others work on the same machine. */
    private readonly before: readonly string[],
  ) {}

  static async start(tag: string, crowd = CROWD): Promise<Leg> {
    const image = await findImage();
    const before = await leftovers(tag);
    const lab = await Lab.create(tag);
    try {
      const supervisor = new Supervisor(lab);
      const client = lab.clients[0]!;
      await boundReceiveBuffers(lab, client);
      await supervisor.up(serviceConfig(tag, image));
      const resets = await ResetWatch.start(lab, client);
      const body = makeUploadBody(lab, UPLOAD_BYTES);
      const traffic = makeTraffic(lab, client, image, CLIENT_MS, 'both');
      return new Leg(
        tag,
        lab,
        supervisor,
        resets,
        new Population(traffic, body, [...image.files.keys()], crowd),
        before,
      );
    } catch (error) {
      await lab.dispose();
      throw error;
    }
  }

  /** Waits until the crowd is busy, lets the fault happen, and waits until the service is protected again. */
  async fault(n: number, planned: PlannedFault, seed: number): Promise<FaultRecord> {
    await this.population.busy(BUSY, BUSY_MS);
    await sleep(planned.delayMs);
    await this.population.busy(BUSY, BUSY_MS);
    const met = this.population.meet(n);
    const started = performance.now();
    const record: FaultRecord = { n, kind: planned.kind, ...met, protectedMs: undefined };
    try {
      const target = {
        service: this.tag,
        supervisor: this.supervisor,
        random: random(seed, 'fault', n),
      };
      await FAULTS[planned.kind](target);
      await this.supervisor.protectedAgain(this.tag);
      record.protectedMs = Math.round(performance.now() - started);
    } catch (error) {
      record.error = (error as Error).message;
    }
    return record;
  }

  /** What became of the clients, the resets that they saw, and what was left behind. */
  async finish(): Promise<{ outcomes: Outcome[]; resets: number; leftovers: string[] }> {
    const strays: string[] = [];
    try {
      const outcomes = await this.population.finish();
      const resets = await this.resets.stop();
      await this.supervisor.down();
      strays.push(...(await this.lab.strays()));
      return { outcomes, resets, leftovers: strays };
    } finally {
      await this.supervisor.command(['down'], true).catch(() => {});
      await this.lab.dispose();
      strays.push(...(await leftovers(this.tag)).filter(line => !this.before.includes(line)));
    }
  }

  /** The supervisor's last events, for a fault that was not survived. */
  async lastEvents(): Promise<string[]> {
    const events = await this.supervisor.events().catch(() => []);
    return events.slice(-20).map(event => `${event.type} ${event.message}`);
  }
}
