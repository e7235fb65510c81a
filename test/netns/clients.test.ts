import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { knownContent } from '../../images/content.js';
import { Capture } from '../lib/capture.js';
import { summarize } from '../lib/gaps.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { shiftTimestamps, TS_AHEAD, TS_BEHIND } from '../lib/ts-shift.js';
import { NetnsBed } from './lib/bed.js';
import { download, servePeer, startPeer, startPeerAt } from './lib/clients.js';
import { CHAT, SINK } from './lib/peer.js';

const PORTS = [80, SINK, CHAT];
const FILE_BYTES = 24 << 20;
/** Some six seconds, as the download and the upload: both faults must find all of them at work. */
const ROUNDS = 200;
const body = Buffer.concat([...knownContent('clients', 'file', FILE_BYTES)]);
const sha256 = createHash('sha256').update(body).digest('hex');

interface Variant {
  name: string;
  /** sysctls of the client's namespace. */
  client?: string[];
  mtu?: number;
  shift?: number;
  compare?: 'sampled' | 'full';
  /** Three clients over each. */
  families?: (4 | 6)[];
}

const VARIANTS: Variant[] = [
  { name: 'a clock far ahead of the host', shift: TS_AHEAD },
  { name: 'a clock far behind the host', shift: TS_BEHIND },
  { name: 'no timestamps', client: ['net.ipv4.tcp_timestamps=0'] },
  { name: 'no SACK', client: ['net.ipv4.tcp_sack=0'] },
  { name: 'no window scaling', client: ['net.ipv4.tcp_window_scaling=0'] },
  {
    name: 'no options at all',
    client: ['net.ipv4.tcp_timestamps=0', 'net.ipv4.tcp_sack=0', 'net.ipv4.tcp_window_scaling=0'],
  },
  { name: 'ECN', client: ['net.ipv4.tcp_ecn=1'] },
  { name: 'MTU 576', mtu: 576 },
  { name: 'the full comparator', compare: 'full' },
  { name: 'IPv6, others with IPv4, and a clock far ahead of the host', families: [4, 6], shift: TS_AHEAD },
  {
    name: 'IPv6, MTU 1280 and no options',
    families: [6],
    mtu: 1280,
    client: ['net.ipv4.tcp_timestamps=0', 'net.ipv4.tcp_sack=0', 'net.ipv4.tcp_window_scaling=0'],
  },
];

/** A download, an upload and a conversation, all in flight; two faults one after the other; all byte-exact. */
async function survivesTwoFaults(t: ExecutionContext, bed: NetnsBed, families: (4 | 6)[]): Promise<void> {
  const root = `${bed.lab.dir}/www`;
  mkdirSync(root);
  writeFileSync(`${root}/file`, body);
  const start = async (slot: number) => {
    await bed.nginx(slot, root);
    await servePeer(bed, slot, [SINK, CHAT]);
  };
  await start(0);
  await start(1);
  const capture = await Capture.start(bed.lab, bed.client);
  const all = families.map(family => ({
    down: download(bed, '/file', '4M', { family }),
    up: startPeerAt(bed, { family }, 'sink', 18 << 20, 3 << 20),
    chat: startPeerAt(bed, { family }, 'chat', ROUNDS, 3000, 30),
  }));
  for (let round = 1; round <= 2; round++) {
    const moved = BigInt(round * (2 << 20));
    await waitFor('the transfers', 30_000, () => {
      const flows = [...bed.path.flows()].map(e => e.flow);
      const far =
        flows.filter(f => f.in_end > moved).length >= families.length &&
        flows.filter(f => f.out_acked > moved).length >= families.length;
      return far && flows.length === 3 * families.length ? true : undefined;
    });
    const recovery = await bed.failover();
    t.deepEqual(
      recovery.verdicts.map(v => `${v.outcome}: ${v.reason}`),
      families.flatMap(() => ['kept: spliced', 'kept: spliced', 'kept: spliced']),
    );
    if (round === 1) await bed.reprotect(start);
  }
  for (const { down, up, chat } of all) {
    t.like(await down.result, { code: 0, bytes: FILE_BYTES, sha256 });
    t.like(await up.result, { ok: true });
    t.like(await chat.result, { ok: true, rounds: ROUNDS });
  }
  await capture.stop();
  const connections = 3 * families.length;
  t.like(summarize(capture.trace(PORTS), connections), { connections, resets: 0, reconnects: 0 });
}

VARIANTS.forEach((variant, i) => {
  test.serial(`clients with ${variant.name}`, async t => {
    const tag = `clients${i}`;
    const bed = await NetnsBed.create(tag, {
      ports: PORTS,
      logMiB: 64,
      compare: variant.compare ?? 'sampled',
    });
    try {
      if (variant.client) await bed.lab.exec(bed.client.name, ['sysctl', '-qw', ...variant.client]);
      if (variant.mtu) {
        await bed.lab.exec(bed.client.name, [
          ...['ip', 'link', 'set', bed.client.dev, 'mtu', `${variant.mtu}`],
        ]);
      }
      if (variant.shift !== undefined) await shiftTimestamps(bed.lab, bed.client, variant.shift);
      await survivesTwoFaults(t, bed, variant.families ?? [4]);
    } finally {
      await bed.dispose();
    }
    t.deepEqual(await leftovers(tag), []);
  });
});

test.serial('a log filled by captured output still takes input', async t => {
  const tag = 'crowded';
  const bed = await NetnsBed.create(tag, { ports: PORTS, logMiB: 8, compare: 'full' });
  try {
    const root = `${bed.lab.dir}/www`;
    mkdirSync(root);
    writeFileSync(`${root}/file`, body);
    await bed.nginx(0, root);
    await servePeer(bed, 0, [SINK, CHAT]);
    t.like(await download(bed, '/file', '100M').result, { code: 0, sha256 });
    t.true(bed.path.stats().UNCOVERED > 0, 'the captures did not all fit');
    t.like(await startPeer(bed, 'chat', 20, 1000, 0).result, { ok: true });
    t.is(bed.path.stats().DROP_LOG_FULL, 0);
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(tag), []);
});
