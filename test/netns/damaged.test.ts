/** A log in which addresses lie: the connection whose input is gone is lost with a reason, and the recovery goes on for the others. */
import test from 'ava';
import { KIND, SegKey } from '../../hypervisor-shim/datapath/layout.generated.js';
import { mapWrite } from '../fixtures/lib/kernel.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { servePeer, startPeer } from './lib/clients.js';
import { SINK } from './lib/peer.js';

const MIB = 1 << 20;
const BEYOND = Uint32Array.of(0xffff_fff0);

/** Lets the index of segments lead beyond the log's end. */
function misplace(bed: NetnsBed, flow: number, kind: number): void {
  const key = new SegKey();
  key.flow = flow;
  key.kind_index = (kind << 28) >>> 0;
  mapWrite(bed.path.fd('segments'), key.bytes, new Uint8Array(BEYOND.buffer));
}

test.serial('segments that would lie outside the log: input is missed, causal marks are not', async t => {
  const bed = await NetnsBed.create('damaged', { ports: [SINK], logMiB: 64 });
  try {
    await servePeer(bed, 0, [SINK]);
    await servePeer(bed, 1, [SINK]);
    const clients = [1, 2, 3].map(() => startPeer(bed, 'sink', 12 * MIB, 4 * MIB));
    const flows = await waitFor('three uploads', 30_000, () => {
      const all = [...bed.path.flows()].filter(({ flow }) => Number(flow.in_end) > MIB);
      return all.length === 3 ? all : undefined;
    });
    misplace(bed, flows[0]!.id, KIND.INPUT);
    misplace(bed, flows[1]!.id, KIND.MARKS);
    const { verdicts } = await bed.failover();
    t.deepEqual(verdicts.map(v => `${v.id} ${v.code}`).sort(), [
      `${flows[0]!.id} log-missing`,
      `${flows[1]!.id} spliced`,
      `${flows[2]!.id} spliced`,
    ]);
    const ends = await Promise.all(clients.map(client => client.result));
    t.deepEqual(ends.map(({ ok }) => ok).sort(), [false, true, true]);
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers('damaged'), []);
});
