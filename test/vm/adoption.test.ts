/** The supervisor is killed, and the next one takes over what it finds (promise P5). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { PIN_ROOT } from '../../supervisor/service/names.js';
import { waitFor } from '../lib/run.js';
import { allAtWork, daemonPid, killDaemon, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';

const ABSENCE_MS = 3000;

/** Clients of the connections that an event says are kept. */
function keptOf(log: string): string[] {
  return log.split('\n').flatMap(line => /"connection\.kept".*"client":"([^"]+)"/.exec(line)?.[1] ?? []);
}

/** Flows whose replay nobody goes on with, while no supervisor runs. */
function replayingNow(service: string): number {
  const path = DataPath.adopt(`${PIN_ROOT}/${service}`);
  const replaying = [...path.flows()].filter(({ flow }) => flow.state === STATE.REPLAYING);
  path.close();
  return replaying.length;
}

/** Too small for the uploads: the oldest of their input is in files. */
const SMALL_LOG = { log: { sizeMiB: 16, spill: {} } };

/** In `make verify`: others of this suite show most of it. */
const long = process.env.HOLDFAST_LONG ? test.serial : test.serial.skip;

test.serial('killed under load, it is followed by one that adopts; then the primary panics', async t => {
  await undisturbed(t, { tag: 'adopt', config: SMALL_LOG }, async stage => {
    const { tag, supervisor, traffic } = stage;
    const old = await waitFor('the log to be spilled', 60_000, async () => {
      const status = await supervisor.status(tag);
      return status.log.spill?.fileBytes ? status : undefined;
    });
    await killDaemon(supervisor);
    await sleep(ABSENCE_MS);
    await supervisor.command(['up']);
    const status = await supervisor.protectedAgain(tag, 15_000);
    for (const role of ['primary', 'backup'] as const) {
      const { name, bootId, pid } = guestOf(old, role);
      t.like(guestOf(status, role), { name, bootId, pid }, `the ${role} goes on as it was`);
    }
    t.is(status.epoch, old.epoch);
    t.true(status.log.spill!.fileBytes >= old.log.spill!.fileBytes, 'what was spilled is adopted, too');
    allAtWork(t, stage, 'after the adoption');
    const report = await supervisor.drill(tag, 'guest-panic');
    t.deepEqual([report.kept, report.lost], [traffic.clients.length, 0]);
    await supervisor.protectedAgain(tag);
  });
});

test.serial('killed during a replay, it is followed by one that finishes the recovery', async t => {
  await undisturbed(t, { tag: 'adoptb' }, async stage => {
    const { tag, supervisor, traffic } = stage;
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
    t.true(replayingNow(tag) > 0, 'some are half replayed');
    await supervisor.command(['up']);
    const status = await supervisor.protectedAgain(tag);
    t.is(guestOf(status, 'primary').bootId, guestOf(old, 'backup').bootId);
    allAtWork(t, stage, 'after the adoption');
    const flows = await supervisor.connections(tag);
    t.is(flows.filter(flow => flow.state === 'spliced').length, traffic.clients.length);
    t.true(
      flows.every(flow => flow.failovers === 1),
      'another try with the same guest is no other failover',
    );
    const kept = keptOf(readFileSync(log, 'utf8'));
    t.log(`${first.length} were spliced, ${kept.length - first.length} came after`);
    t.is(new Set(kept).size, kept.length, 'none that was spliced is replayed into the same guest');
    const reports = (await supervisor.events()).filter(event => event.type === 'recovery.done');
    t.is(reports.length, 1);
    const whole = { cause: 'guest-panic', kept: traffic.clients.length, lost: 0 };
    t.like(reports[0]?.data, whole, 'the report has those that the killed one had spliced, too');
  });
});

long('a primary that died while no supervisor was there is recovered from by the next', async t => {
  await undisturbed(t, { tag: 'adopt' }, async stage => {
    const { tag, supervisor, traffic } = stage;
    const old = await supervisor.status(tag);
    await killDaemon(supervisor);
    process.kill(guestOf(old, 'primary').pid!, 'SIGKILL');
    await sleep(ABSENCE_MS);
    await supervisor.command(['up']);
    const status = await supervisor.protectedAgain(tag);
    t.is(guestOf(status, 'primary').bootId, guestOf(old, 'backup').bootId);
    allAtWork(t, stage, 'after the adoption');
    const recovered = (await supervisor.events()).filter(event => event.type === 'recovery.done');
    t.like(recovered[0]?.data, { cause: 'guest-gone', kept: traffic.clients.length, lost: 0 });
  });
});
