/** A download far larger than the log, and thousands of connections on which nothing happens, through the same failover. */
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import test from 'ava';
import { knownContent } from '../../images/content.js';
import { countSegments } from '../../supervisor/service/flows.js';
import { CrowdClient } from '../bench/crowd-client.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { download, servePeer } from './lib/clients.js';
import { CHAT } from './lib/peer.js';

type Segments = ReturnType<typeof countSegments>[number];

const TAG = 'long';
/** At full size in `make verify`. */
const BYTES = process.env.HOLDFAST_LONG ? 1 << 30 : 256 << 20;
const IDLE = 2000;

/** A file whose content never repeats, so that no shift goes unseen; returns its SHA-256. */
function writeFile(path: string, bytes: number): string {
  const hash = createHash('sha256');
  const fd = openSync(path, 'w');
  for (const block of knownContent(TAG, 'file', bytes)) {
    hash.update(block);
    writeSync(fd, block);
  }
  closeSync(fd);
  return hash.digest('hex');
}

test('a long download and 2000 idle connections: all are kept in a failover, and none takes room for what it has got', async t => {
  const bed = await NetnsBed.create(TAG, { ports: [80, CHAT], logMiB: 96 });
  try {
    const root = `${bed.lab.dir}/www`;
    mkdirSync(root);
    const sha256 = writeFile(`${root}/file`, BYTES);
    for (const slot of [0, 1]) {
      await bed.nginx(slot, root);
      await servePeer(bed, slot, [CHAT]);
    }
    const crowd = CrowdClient.start(bed.lab, 'chat', CHAT, '20');
    await crowd.open(IDLE);
    const d = download(bed, '/file', BYTES > 1 << 28 ? '400M' : '100M');
    await waitFor('most of the file', 120_000, () => d.moved() > 0.8 * BYTES || undefined);
    const [small, large] = countSegments(bed) as [Segments, Segments];
    t.is(large.free, large.total, 'a download takes nothing of the room for input');
    const perFlow = (small.total - small.free) / (IDLE + 1);
    t.true(perFlow < 4, `${perFlow} small segments for each connection`);
    const { verdicts } = await bed.failover(120_000);
    t.deepEqual([verdicts.length, verdicts.filter(v => v.reason === 'spliced').length], [IDLE + 1, IDLE + 1]);
    t.like(await d.result, { code: 0, bytes: BYTES, sha256 });
    t.is(bed.path.stats().UNCOVERED, 0, 'the comparator had room for all its samples');
    const before = await crowd.ask('100');
    t.is((await crowd.ask('100')) - before, IDLE * 100);
    await crowd.stop();
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(TAG), []);
});
