import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { SERVICE_ADDRESS } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { repositoryRoot, waitFor } from '../lib/run.js';
import { Actor } from '../sweep/actor-process.js';
import { sweepBed } from '../sweep/bed.js';
import { pairwisePlan, samplePlan } from '../sweep/plan.js';
import { faultsOf, passingCells, table } from '../sweep/report.js';
import { FIRST_PORT, STAGE_NAMES } from '../sweep/stages.js';
import { NetnsBed } from './lib/bed.js';

/** `make sweep` runs the whole plan; here are those laboratories of it that this seed chooses. */
const SEED = Number(process.env.SEED || 1);
const IDLE = 2000;

for (const plan of samplePlan(SEED)) {
  test.serial(`a failover at every stage: ${plan.id}`, async t => {
    const result = await sweepBed('sweep', plan);
    t.deepEqual(faultsOf(result, plan), []);
  });
}

test('the table of the sweep is that of its present plan, and all of it passed', t => {
  const written = readFileSync(join(repositoryRoot(), 'test/sweep/table.md'), 'utf8');
  t.is(written, table(passingCells(pairwisePlan(1))), 'run `make sweep`');
});

test.serial(`${IDLE} idle connections are all still there`, async t => {
  const tag = 'idlecrowd';
  const bed = await NetnsBed.create(tag, { ports: STAGE_NAMES.map((_, i) => FIRST_PORT + i), logMiB: 96 });
  try {
    const servers = await Promise.all(
      ['first', 'second'].map((word, slot) => Actor.start(bed, bed.guest(slot), 'server', word)),
    );
    const client = await Actor.start(bed, bed.client.name, 'client', SERVICE_ADDRESS);
    client.tell({ start: 'idle', times: IDLE });
    await waitFor('all to be idle', 60_000, () => client.counts.get('go') === IDLE || undefined);
    const { verdicts } = await bed.failover(60_000);
    t.is(verdicts.filter(v => v.outcome === 'kept').length, IDLE);
    client.tell({ open: 'go' });
    for (const actor of [client, servers[1]!]) {
      await waitFor('all to end', 60_000, () => actor.counts.get('done') === IDLE || undefined);
      t.deepEqual(actor.errors, []);
    }
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(tag), []);
});
