import { mkdirSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { CrowdClient } from '../bench/crowd-client.js';
import { leftovers } from '../lib/leftovers.js';
import { NetnsBed } from './lib/bed.js';

const TAG = 'crowd';
const COUNT = 2000;
/** Handshakes at once. */
const WIDTH = 256;
/** Of each connection the log holds two small segments: its input, and the head of its output. */
const LOG_MIB = 96;
let bed: NetnsBed;

test.before(async () => {
  bed = await NetnsBed.create(TAG, { ports: [80], logMiB: LOG_MIB, maxFlows: 16_384 });
  const root = `${bed.lab.dir}/www`;
  mkdirSync(root);
  writeFileSync(`${root}/1k`, Buffer.alloc(1024, 'k'));
  for (const slot of [0, 1]) await bed.nginx(slot, root);
});

test.after.always(async t => {
  await bed?.dispose();
  t.deepEqual(await leftovers(TAG), []);
});

test.serial('2,000 idle connections are kept through a failover, and each answers afterwards', async t => {
  const crowd = CrowdClient.start(bed.lab, 'http', 80, '/1k');
  await crowd.open(COUNT, WIDTH);
  t.true(
    bed.path.control.flow_high <= 2 * COUNT,
    'low records are used first: all up to the highest are read again and again',
  );
  const batches: number[] = [];
  const { verdicts } = await bed.failover(30_000, verdicts => batches.push(verdicts.length));
  t.is(verdicts.filter(v => v.code === 'spliced').length, COUNT);
  t.is(verdicts.length, COUNT);
  t.true(batches.length <= COUNT / 2, `verdicts come many at once, not in ${batches.length} messages`);
  await crowd.ask();
  await crowd.stop();
});
