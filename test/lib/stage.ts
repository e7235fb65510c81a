import { readFileSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { ServiceNames } from '../../supervisor/service/names.js';
import { Capture } from './capture.js';
import { earlyFarewell } from './farewells.js';
import { summarize } from './gaps.js';
import { findImage, type Image } from './image.js';
import { keepLogs } from './keep.js';
import { type ClientNamespace, Lab } from './lab.js';
import { leftovers } from './leftovers.js';
import { boundReceiveBuffers, makeTraffic } from './load.js';
import { waitFor } from './run.js';
import { SERVICE_PORTS, serviceConfig } from './scenario.js';
import { Supervisor } from './supervisor.js';
import type { Trace } from './tcp-trace.js';
import { makeUploadBody, type Traffic } from './traffic.js';

/** Clients that are at work while a test acts: how many of each kind, and how slow (bytes or requests a second). */
export interface Load {
  downloads: number;
  uploads: number;
  loops: number;
  downloadRate: number;
  uploadRate: number;
  uploadMiB: number;
  requests: number;
  requestsPerSecond: number;
  /** No client runs longer, ms. */
  timeoutMs: number;
}

/** Outlives some two boots of a backup under emulation. */
export const STEADY_LOAD: Load = {
  downloads: 5,
  uploads: 3,
  loops: 4,
  downloadRate: 400_000,
  uploadRate: 300_000,
  uploadMiB: 16,
  requests: 300,
  requestsPerSecond: 6,
  timeoutMs: 240_000,
};

/** Outlives some five of them. */
export const LONG_LOAD: Load = {
  downloads: 6,
  uploads: 4,
  loops: 6,
  downloadRate: 200_000,
  uploadRate: 150_000,
  uploadMiB: 24,
  requests: 600,
  requestsPerSecond: 4,
  timeoutMs: 300_000,
};

/** What a test acts on: a protected service and clients in the middle of their transfers. */
export interface Stage {
  tag: string;
  lab: Lab;
  client: ClientNamespace;
  image: Image;
  supervisor: Supervisor;
  traffic: Traffic;
  /** With `captureGuest`; to be stopped by the test, before the tap goes. */
  guestCapture: Capture | undefined;
  /** Connections that the test opened beside the load; it counts them. */
  opened: number;
  /** Called with what clients saw of their connections, from begin to end. */
  judge: ((trace: Trace) => void) | undefined;
}

export interface StageOptions {
  /** Lab tag, also the service's name. */
  tag: string;
  load?: Partial<Load>;
  /** An appliance's YAML in place of the example. */
  appliance?: string;
  /** What the guests serve, if `config` says that they are made of something else. */
  image?: Image;
  /** Merged over the service's configuration, top-level fields. */
  config?: Record<string, unknown>;
  /** Also capture at the tap of the first primary, from before the first connection on. */
  captureGuest?: boolean;
}

/**
 * Protects a service on real guests, lets clients transfer, plays `act`, and demands that no client noticed anything: each
 * stream whole, no reset, no reconnect, no FIN before its own; and that nothing is left behind. A failure logs the supervisor's events,
 * and keeps what else there is (keep.ts).
 */
export async function undisturbed(
  t: ExecutionContext,
  options: StageOptions,
  act: (stage: Stage) => Promise<void>,
): Promise<void> {
  const { tag } = options;
  const image = options.image ?? (await findImage(text => t.log(text.trim()), options.appliance));
  const lab = await Lab.create(tag);
  const before = await leftovers(tag);
  const supervisor = new Supervisor(lab);
  try {
    const client = lab.clients[0]!;
    await boundReceiveBuffers(lab, client);
    await supervisor.up(serviceConfig(tag, image, options.config));
    const capture = await Capture.start(lab, client);
    const tap = { name: lab.host, dev: new ServiceNames(tag).tap(0) };
    const guestCapture = options.captureGuest ? await Capture.start(lab, tap) : undefined;
    const traffic = startLoad(lab, client, image, { ...STEADY_LOAD, ...options.load });
    await traffic.waitInFlight(256 << 10, 1 << 20, 60_000);
    const stage: Stage = {
      tag,
      lab,
      client,
      image,
      supervisor,
      traffic,
      guestCapture,
      opened: 0,
      judge: undefined,
    };
    await act(stage);
    const results = await traffic.results();
    t.deepEqual(
      results.filter(r => !r.ok).map(r => `${r.label}: ${r.error}`),
      [],
    );
    await capture.stop();
    const connections = traffic.clients.length + stage.opened;
    const trace = capture.trace(SERVICE_PORTS);
    const summary = summarize(trace, connections);
    t.like(summary, { connections, resets: 0, reconnects: 0 });
    t.deepEqual(trace.connections.flatMap(earlyFarewell), []);
    stage.judge?.(trace);
    await supervisor.down();
    t.deepEqual(await lab.strays(), []);
  } catch (error) {
    const events = await supervisor.events().catch(() => []);
    for (const { at, type, message } of events) t.log(`${new Date(at).toISOString()} ${type}: ${message}`);
    keepLogs(lab, line => t.log(line));
    throw error;
  } finally {
    await supervisor.command(['down'], true).catch(() => {});
    await lab.dispose();
  }
  t.deepEqual(
    (await leftovers(tag)).filter(line => !before.includes(line)),
    [],
  );
}

function startLoad(lab: Lab, client: ClientNamespace, image: Image, load: Load): Traffic {
  const traffic = makeTraffic(lab, client, image, load.timeoutMs);
  const body = makeUploadBody(lab, load.uploadMiB << 20);
  const files = [...image.files.keys()];
  for (let i = 0; i < load.downloads; i++) traffic.curl(files[i % files.length]!, load.downloadRate);
  for (let i = 0; i < load.uploads; i++) traffic.upload(body, load.uploadRate);
  for (let i = 0; i < load.loops; i++) traffic.keepAlive(load.requests, load.requestsPerSecond);
  return traffic;
}

/** All clients must still be at work: a fault injected now meets every one of them. */
export function allAtWork(t: ExecutionContext, { traffic }: Stage, when: string): void {
  t.is(traffic.clients.filter(client => client.ended).length, 0, `all clients are at work ${when}`);
}

export async function daemonPid(supervisor: Supervisor): Promise<number> {
  const { stdout } = await supervisor.command(['up']);
  return (JSON.parse(stdout) as { pid: number }).pid;
}

/** SIGKILL, and until it has ended. */
export async function killDaemon(supervisor: Supervisor): Promise<void> {
  const pid = await daemonPid(supervisor);
  process.kill(pid, 'SIGKILL');
  await waitFor('the daemon to end', 5000, async () => ended(pid) || undefined, 5);
}

function ended(pid: number): boolean {
  try {
    return / [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}
