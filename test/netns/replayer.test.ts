/** What a recovery takes of this process, it gives back; and it takes the time that the guest needs. */
import { readdirSync } from 'node:fs';
import test from 'ava';
import { STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { servePeer, startPeer } from './lib/clients.js';
import { CHAT, RANDOM, SINK } from './lib/peer.js';

const TAG = 'replayer';
const RECOVERIES = 5;
const PORTS = [SINK, CHAT, RANDOM];
/** Taken in at this rate, the upload needs three times the deadline, the receive buffer aside. */
const UPLOAD_BYTES = 24 << 20;
const SLOW_RATE = 5 << 20;
const DEADLINE_MS = 1500;

const openFiles = () => readdirSync('/proc/self/fd').length;

test.serial(
  'replayers leave no file descriptor open, whether they were used, not used, or ended in their work',
  async t => {
    const bed = await NetnsBed.create(TAG, { ports: PORTS });
    try {
      await servePeer(bed, bed.active, PORTS);
      const client = startPeer(bed, 'chat', 0, 1000, 0, -1);
      await client.open;
      const replaying = () => [...bed.path.flows()].some(({ flow }) => flow.state === STATE.REPLAYING);
      t.false(replaying()); // opens the map of flows, which stays open
      const before = openFiles();
      for (let i = 0; i < RECOVERIES; i++) {
        await bed.reprotect(slot => servePeer(bed, slot, PORTS));
        await bed.prepare();
        t.is((await bed.failover()).verdicts.length, 1);
      }
      await bed.prepare();
      t.is(openFiles(), before);

      // Nobody listens there: the replay is refused, and tries again.
      await bed.endServices(1 - bed.active);
      const ended = t.throwsAsync(bed.failover(60_000), { message: /it was ended/ });
      await waitFor('the replay', 20_000, () => {
        return replaying() || undefined;
      });
      await bed.prepare();
      await ended;
      t.is(openFiles(), before);
      await bed.lab.stop(client.child, 0);
    } finally {
      await bed.dispose();
    }
    t.deepEqual(await leftovers(TAG), []);
  },
);

test.serial(
  'a connection whose replay takes longer than the deadline is kept as long as it gets on',
  async t => {
    const bed = await NetnsBed.create('slow', { ports: PORTS, logMiB: 64 });
    try {
      await servePeer(bed, 0, PORTS);
      await servePeer(bed, 1, PORTS, SLOW_RATE);
      const upload = startPeer(bed, 'sink', UPLOAD_BYTES, UPLOAD_BYTES / 4);
      await waitFor('most of the upload', 30_000, () => {
        return (
          [...bed.path.flows()].some(({ flow }) => Number(flow.in_end) > UPLOAD_BYTES * 0.9) || undefined
        );
      });
      const { verdicts, ms } = await bed.failover(DEADLINE_MS);
      t.deepEqual(
        verdicts.map(({ reason }) => reason),
        ['spliced'],
      );
      t.true(ms > DEADLINE_MS, `it took ${ms} ms`);
      t.like(await upload.result, { ok: true, bytes: UPLOAD_BYTES });
    } finally {
      await bed.dispose();
    }
    t.deepEqual(await leftovers('slow'), []);
  },
);
