/** The supervisor is killed, and the next one takes over what it finds (promise P5). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Capture } from '../lib/capture.js';
import { summarize } from '../lib/gaps.js';
import { findImage } from '../lib/image.js';
import { Lab } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { boundReceiveBuffers, makeTraffic } from '../lib/load.js';
import { waitFor } from '../lib/run.js';
import { SERVICE_PORTS, serviceConfig } from '../lib/scenario.js';
import { guestOf, Supervisor } from '../lib/supervisor.js';
import { makeUploadBody, type Traffic } from '../lib/traffic.js';

const DOWNLOAD_RATE = 400_000;
const UPLOAD_RATE = 300_000;
const CLIENT_TIMEOUT_MS = 240_000;
const ABSENCE_MS = 3000;

interface Scene {
  tag: string;
  supervisor: Supervisor;
  traffic: Traffic;
}

/** Protects a service, lets 12 clients transfer, plays `act`, and demands that no client notices anything. */
async function undisturbed(t: ExecutionContext, tag: string, act: (scene: Scene) => Promise<void>) {
  const image = await findImage(text => t.log(text.trim()));
  const lab = await Lab.create(tag);
  const before = await leftovers(tag);
  const supervisor = new Supervisor(lab);
  try {
    const client = lab.clients[0]!;
    await boundReceiveBuffers(lab, client);
    await supervisor.up(serviceConfig(tag, image));
    const capture = await Capture.start(lab, client);
    const traffic = makeTraffic(lab, client, image, CLIENT_TIMEOUT_MS);
    const body = makeUploadBody(lab, 16 << 20);
    const files = [...image.files.keys()];
    for (let i = 0; i < 5; i++) traffic.curl(files[i]!, DOWNLOAD_RATE);
    for (let i = 0; i < 3; i++) traffic.upload(body, UPLOAD_RATE);
    for (let i = 0; i < 4; i++) traffic.keepAlive(300, 6);
    await traffic.waitInFlight(256 << 10, 1 << 20, 60_000);
    await act({ tag, supervisor, traffic });
    const results = await traffic.results();
    t.deepEqual(
      results.filter(r => !r.ok).map(r => `${r.label}: ${r.error}`),
      [],
    );
    await capture.stop();
    const summary = summarize(capture.trace(SERVICE_PORTS), traffic.clients.length);
    t.like(summary, { connections: traffic.clients.length, resets: 0, reconnects: 0 });
    await supervisor.down();
    t.deepEqual(await lab.strays(), []);
  } catch (error) {
    t.log(await supervisor.events().catch(String));
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

async function daemonPid(supervisor: Supervisor): Promise<number> {
  const { stdout } = await supervisor.command(['up']);
  return (JSON.parse(stdout) as { pid: number }).pid;
}

async function killDaemon(supervisor: Supervisor): Promise<void> {
  const pid = await daemonPid(supervisor);
  process.kill(pid, 'SIGKILL');
  await waitFor('the daemon to end', 5000, async () => ended(pid) || undefined, 5);
}

/** Clients of the connections that an event says are kept. */
function keptOf(log: string): string[] {
  return log.split('\n').flatMap(line => /"connection\.kept".*"client":"([^"]+)"/.exec(line)?.[1] ?? []);
}

function ended(pid: number): boolean {
  try {
    return / [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}

test.serial('killed under load, it is followed by one that adopts; then the primary panics', async t => {
  await undisturbed(t, 'adopt', async ({ tag, supervisor, traffic }) => {
    const old = await supervisor.status(tag);
    await killDaemon(supervisor);
    await sleep(ABSENCE_MS);
    await supervisor.command(['up']);
    const status = await supervisor.protectedAgain(tag, 15_000);
    for (const role of ['primary', 'backup'] as const) {
      const { name, bootId, pid } = guestOf(old, role);
      t.like(guestOf(status, role), { name, bootId, pid }, `the ${role} goes on as it was`);
    }
    t.is(status.epoch, old.epoch);
    t.is(traffic.clients.filter(c => c.ended).length, 0, 'all clients are at work');
    const report = await supervisor.drill(tag, 'guest-panic');
    t.deepEqual([report.kept, report.lost], [traffic.clients.length, 0]);
    await supervisor.protectedAgain(tag);
  });
});

test.serial('killed during a replay, it is followed by one that finishes the recovery', async t => {
  await undisturbed(t, 'adoptb', async ({ tag, supervisor, traffic }) => {
    const old = await supervisor.status(tag);
    const pid = await daemonPid(supervisor);
    const log = join(supervisor.stateDir, 'events.ndjson');
    const drill = supervisor.drill(tag, 'guest-panic').catch(() => undefined);
    // Not a timer: from the first splice to the last it takes some hundred ms.
    const deadline = Date.now() + 30_000;
    while (!readFileSync(log, 'utf8').includes('"connection.kept"') && Date.now() < deadline) await sleep(1);
    process.kill(pid, 'SIGKILL');
    await drill;
    t.false(readFileSync(log, 'utf8').includes('"recovery.done"'), 'the replay was not over');
    const first = keptOf(readFileSync(log, 'utf8'));
    t.true(first.length > 0, 'some connections were spliced');
    await supervisor.command(['up']);
    const status = await supervisor.protectedAgain(tag);
    t.is(guestOf(status, 'primary').bootId, guestOf(old, 'backup').bootId);
    t.is(traffic.clients.filter(c => c.ended).length, 0, 'all clients are at work');
    const flows = await supervisor.connections(tag);
    t.is(flows.filter(flow => flow.state === 'spliced').length, traffic.clients.length);
    const again = flows.filter(flow => flow.failovers === 2).map(flow => flow.client);
    t.log(`${first.length} were spliced, ${again.length} half replayed`);
    t.true(again.length > 0, 'some were half replayed when the supervisor died, and were replayed again');
    t.deepEqual(
      again.filter(client => first.includes(client)),
      [],
      'none that was spliced is replayed into the same guest',
    );
  });
});

test.serial('a primary that died while no supervisor was there is recovered from by the next', async t => {
  await undisturbed(t, 'adopt', async ({ tag, supervisor, traffic }) => {
    const old = await supervisor.status(tag);
    await killDaemon(supervisor);
    process.kill(guestOf(old, 'primary').pid!, 'SIGKILL');
    await sleep(ABSENCE_MS);
    await supervisor.command(['up']);
    const status = await supervisor.protectedAgain(tag);
    t.is(guestOf(status, 'primary').bootId, guestOf(old, 'backup').bootId);
    t.is(traffic.clients.filter(c => c.ended).length, 0, 'all clients are at work');
    const recovered = (await supervisor.events()).filter(event => event.type === 'recovery.done');
    t.like(recovered[0]?.data, { cause: 'guest-gone', kept: traffic.clients.length, lost: 0 });
  });
});
