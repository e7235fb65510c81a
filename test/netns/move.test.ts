/** A planned change between two guests that are well, under clients that never pause: their next request is there as soon as the last answer. */
import { mkdirSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { Exchanges } from '../../supervisor/migration/exchanges.js';
import { type Gone, letGo, owned } from '../../supervisor/migration/let-go.js';
import { SERVICE_ADDRESS } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { sleep, waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';

const TAG = 'move';
const CONNECTIONS = 40;

test('busy connections move between two requests, there and back, and no request fails', async t => {
  const bed = await NetnsBed.create(TAG, { ports: [80], logMiB: 96 });
  try {
    const root = `${bed.lab.dir}/www`;
    mkdirSync(root);
    writeFileSync(`${root}/file`, 'x'.repeat(3000));
    for (const slot of [0, 1]) await bed.nginx(slot, root);
    const { path } = bed;
    const p = { path, exchanges: new Exchanges(path, { 80: 'http' }) };
    const argv = [
      'wrk',
      '-t1',
      `-c${CONNECTIONS}`,
      '-d12s',
      '--timeout',
      '10s',
      `http://${SERVICE_ADDRESS}/file`,
    ];
    const child = bed.lab.spawn(bed.client.name, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    child.stdout!.on('data', d => {
      said += d;
    });
    const ended = new Promise<number | null>(resolve => child.on('close', resolve));
    await waitFor('the clients', 20_000, () => owned(p, { slot: 0 }) === CONNECTIONS || undefined);

    for (let round = 0; round < 2; round++) {
      const from = { slot: bed.switchOver() };
      const total = { moved: 0, replayed: 0 };
      const look = (): Gone => {
        const gone = letGo(p, from, 'between');
        total.moved += gone.moved;
        total.replayed += gone.replayed;
        return gone;
      };
      const rounds = performance.now() + 30_000;
      while (owned(p, from) > 0 && performance.now() < rounds) {
        look();
        let replaying = true;
        const replay = bed.replayLate(30_000, true).finally(() => {
          replaying = false;
        });
        for (; replaying; await sleep(5)) look();
        t.deepEqual(
          (await replay).filter(v => v.outcome !== 'kept'),
          [],
        );
      }
      t.is(owned(p, from), 0, 'nobody is left');
      t.is(total.moved, CONNECTIONS, `${total.replayed} repeated something`);
      path.fence(from.slot);
    }
    t.is(await ended, 0);
    t.notRegex(said, /Socket errors|Non-2xx/);
    t.regex(said, /(\d+) requests in/);
    t.log(/\d+ requests in.*/.exec(said)![0]);
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(TAG), []);
});
