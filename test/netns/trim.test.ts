/** What is over on a connection of a known protocol is forgotten, and a fault repeats only what is under way. */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { knownContent } from '../../images/content.js';
import { Exchanges } from '../../supervisor/migration/exchanges.js';
import { Capture } from '../lib/capture.js';
import { summarize } from '../lib/gaps.js';
import { SERVICE_ADDRESS } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';

const TAG = 'trim';
const REQUESTS = 300;
const BYTES = 30_000;

test('a connection of many requests repeats one of them', async t => {
  const bed = await NetnsBed.create(TAG, { ports: [80], logMiB: 16 });
  try {
    const root = `${bed.lab.dir}/www`;
    mkdirSync(root);
    const body = Buffer.concat([...knownContent(TAG, 'file', BYTES)]);
    writeFileSync(`${root}/file`, body);
    for (const slot of [0, 1]) await bed.nginx(slot, root);
    const capture = await Capture.start(bed.lab, bed.client);
    const exchanges = new Exchanges(bed.path, { 80: 'http' });
    const url = `http://${SERVICE_ADDRESS}/file?[1-${REQUESTS}]`;
    const argv = ['curl', '-q', '-sS', '--fail', '--rate', '30/s', '-o', '-', url];
    const child = bed.lab.spawn(bed.client.name, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    const received = createHash('sha256');
    child.stdout!.on('data', d => received.update(d));
    const ended = new Promise<number | null>(resolve => child.on('close', resolve));

    const flow = () => [...bed.path.flows()][0]?.flow;
    /** The janitor's round, until so much of the input is forgotten. */
    const forgotten = (bytes: number) =>
      waitFor(`${bytes} bytes of input to be forgotten`, 30_000, () => {
        for (const { id, flow } of bed.path.flows()) exchanges.trim(id, flow);
        return (flow()?.in_base ?? 0n) > bytes || undefined;
      });
    for (const bytes of [3000, 8000]) {
      await forgotten(bytes);
      const { in_base, in_end, out_base } = flow()!;
      t.true(in_end - in_base < 500n, `${in_end - in_base} bytes of ${in_end} are still to be said again`);
      t.true(out_base > 10 * BYTES);
      const { verdicts } = await bed.failover();
      t.deepEqual(
        verdicts.map(v => v.outcome),
        ['kept'],
      );
      if (bytes === 3000) await bed.reprotect(slot => bed.nginx(slot, root));
    }
    t.is(await ended, 0);
    t.is(
      received.digest('hex'),
      createHash('sha256')
        .update(Buffer.concat(Array(REQUESTS).fill(body)))
        .digest('hex'),
    );
    await capture.stop();
    t.like(summarize(capture.trace([80]), 1), { connections: 1, resets: 0, reconnects: 0 });
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(TAG), []);
});
