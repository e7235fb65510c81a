/** Budgets under attack: a SYN flood, a full flow table, a connection that wants the whole log. What is protected stays so. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { ON_FULL, STATE, TABLE_FULL } from '../../hypervisor-shim/datapath/layout.generated.js';
import { knownContent } from '../../images/content.js';
import { Exchanges } from '../../supervisor/migration/exchanges.js';
import { Janitor, type JanitorCharge } from '../../supervisor/recovery/janitor.js';
import { Capture } from '../lib/capture.js';
import { summarize } from '../lib/gaps.js';
import { leftovers } from '../lib/leftovers.js';
import { run, waitFor } from '../lib/run.js';
import { type BedOptions, NetnsBed } from './lib/bed.js';
import { download, servePeer, startPeer, startPeerAt } from './lib/clients.js';
import { CHAT, SINK } from './lib/peer.js';

const PORTS = [80, SINK, CHAT];
const RAW = fileURLToPath(new URL('./lib/raw.js', import.meta.url));
const SYNS = 100_000;
const FILE_BYTES = 32 << 20;

async function onBed(
  t: ExecutionContext,
  tag: string,
  options: Partial<BedOptions>,
  body: (bed: NetnsBed) => Promise<void>,
): Promise<void> {
  const bed = await NetnsBed.create(tag, { ports: PORTS, logMiB: 64, ...options });
  try {
    for (const slot of [0, 1]) await servePeer(bed, slot, [SINK, CHAT]);
    await body(bed);
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(tag), []);
}

/** Frames that a guest has got. */
async function received(bed: NetnsBed, slot: number): Promise<number> {
  const { stdout } = await run(['ip', '-j', '-s', '-n', bed.guest(slot), 'link', 'show', 'eth0']);
  return JSON.parse(stdout)[0].stats64.rx.packets;
}

/** What the supervisor's janitor says of a bed; it goes on until `stop`. */
function janitorOf(bed: NetnsBed, onFull: 'wait' | 'refuse') {
  const said: string[] = [];
  const charge = {
    path: bed.path,
    config: {
      name: bed.lab.tag,
      log: { onFull: 'backpressure', perConnectionMiB: 1 },
      connections: { max: bed.path.maxFlows, onFull },
    },
    replaying: false,
    lateFlows: false,
    logFull: false,
    exchanges: new Exchanges(bed.path, {}),
    guestIn: () => undefined,
    wake: () => {},
    say: (type: string, message: string) => void said.push(`${type}: ${message}`),
  } as unknown as JanitorCharge;
  const janitor = new Janitor(charge);
  janitor.start();
  return { said, stop: () => janitor.stop() };
}

test.serial(
  'a SYN flood: transfers go on byte by byte through a failover in its midst, and new clients come in after it',
  async t => {
    await onBed(t, 'flood', { clients: 2 }, async bed => {
      const root = `${bed.lab.dir}/www`;
      mkdirSync(root);
      const body = Buffer.concat([...knownContent('flood', 'file', FILE_BYTES)]);
      writeFileSync(`${root}/file`, body);
      const sha256 = createHash('sha256').update(body).digest('hex');
      const attacker = bed.lab.clients[1]!;
      for (const slot of [0, 1]) {
        await bed.nginx(slot, root);
        // The guests answer all those addresses, whoever hears it.
        await run(['ip', '-n', bed.guest(slot), 'route', 'add', 'default', 'via', attacker.address]);
        await run(['ip', '-n', bed.guest(slot), '-6', 'route', 'add', 'default', 'via', attacker.address6]);
      }
      const capture = await Capture.start(bed.lab, bed.client);
      const down = [4, 6].map(family => download(bed, '/file', '5M', { family: family as 4 | 6 }));
      const up = startPeer(bed, 'sink', 16 << 20, 3 << 20);
      const chats = Array.from({ length: 10 }, (_, i) =>
        startPeerAt(bed, { family: i % 2 ? 6 : 4 }, 'chat', 0, 2000, 50),
      );
      await Promise.all(chats.map(chat => chat.open));
      await waitFor('all transfers', 20_000, () => [...bed.path.flows()].length === 13 || undefined);

      const flood = bed.lab.spawn(attacker.name, [
        process.execPath,
        RAW,
        'syn',
        attacker.dev,
        `${SYNS}`,
        '80',
      ]);
      let sent = 0;
      flood.stdout!.on('data', d => {
        sent = Number(/sent (\d+)\n$/.exec(String(d))?.[1] ?? sent);
      });
      const over = once(flood, 'close');
      await waitFor('a third of the flood', 60_000, () => sent > SYNS / 3 || undefined);
      const { verdicts } = await bed.failover();
      t.deepEqual(
        verdicts.filter(v => v.outcome === 'lost'),
        [],
      );
      t.is(verdicts.filter(v => v.code === 'spliced' && v.port === CHAT).length, chats.length);
      t.true(sent < SYNS, 'the fault came within the flood');
      await over;
      t.is(sent, SYNS);
      const heard = await Promise.all([0, 1].map(slot => received(bed, slot)));
      t.true(heard[0]! + heard[1]! > SYNS, `both guests had their part of it: ${heard}`);
      t.true(Math.min(...heard) > SYNS / 6, `${heard}`);
      t.like(await startPeer(bed, 'chat', 5, 2000, 0).result, { ok: true }, 'a new client right after it');
      for (const d of down) t.like(await d.result, { code: 0, bytes: FILE_BYTES, sha256 });
      t.like(await up.result, { ok: true });
      for (const chat of chats) chat.child.kill('SIGUSR2');
      for (const chat of chats) t.like(await chat.result, { ok: true });
      await capture.stop();
      t.like(summarize(capture.trace(PORTS), 14), { connections: 14, resets: 0, reconnects: 0 });
      t.is(bed.path.stats().OPENED, 14, 'a handshake that nobody ends is no flow');
      t.is(bed.path.stats().DROP_TABLE_FULL, 0);
    });
  },
);

test.serial(
  'a full flow table: open connections survive a fault, new ones wait or are refused, and it is told once',
  async t => {
    const max = 24;
    await onBed(t, 'tablefull', { maxFlows: max, clients: 2 }, async bed => {
      const janitor = janitorOf(bed, 'wait');
      try {
        const all = Array.from({ length: max }, () => startPeer(bed, 'chat', 3, 2000, 0, -1));
        await Promise.all(all.map(chat => chat.open));
        const late = startPeer(bed, 'chat', 3, 2000, 0);
        await waitFor(
          'the newcomer to find no room',
          10_000,
          () => bed.path.stats().DROP_TABLE_FULL > 0 || undefined,
        );
        bed.path.control.table_full = TABLE_FULL.TABLE_REFUSE;
        for (const family of [4, 6] as const) {
          const refused = await startPeerAt(
            bed,
            { family, namespace: bed.lab.clients[1]!.name },
            'chat',
            1,
            100,
            0,
          ).result;
          t.regex(refused.error ?? '', /ECONNREFUSED/);
        }
        bed.path.control.table_full = TABLE_FULL.TABLE_WAIT;
        const { verdicts } = await bed.failover();
        t.is(verdicts.filter(v => v.code === 'spliced').length, max);
        for (const chat of all) chat.child.kill('SIGUSR2');
        for (const chat of all) t.like(await chat.result, { ok: true, rounds: 3 });
        t.like(await late.result, { ok: true }, 'there is room, and its SYN comes again');
        await waitFor('the end of it', 10_000, () => janitor.said.length > 1 || undefined);
        t.deepEqual(janitor.said, [
          `connections.full: ${max} connections are open: new ones get no answer`,
          'connections.room: new connections find room again',
        ]);
      } finally {
        janitor.stop();
      }
    });
  },
);

test.serial(
  'a connection that has used its share of the log up waits, or goes on unprotected; others are kept',
  async t => {
    const bytes = 6 << 20;
    await onBed(t, 'share', { perConnectionMiB: 1 }, async bed => {
      const janitor = janitorOf(bed, 'wait');
      try {
        const chat = startPeer(bed, 'chat', 0, 3000, 40);
        await chat.open;
        const up = startPeer(bed, 'sink', bytes, 100 << 20);
        const flow = () => [...bed.path.flows()].map(e => e.flow).find(f => f.in_end > 100_000n);
        await waitFor('the upload to wait', 20_000, () => bed.path.stats().DROP_SHARE > 3 || undefined);
        t.true(flow()!.in_end <= 1n << 20n);
        await waitFor('it to be told', 10_000, () => janitor.said.length > 0 || undefined);
        janitor.stop();
        const first = await bed.failover();
        t.deepEqual(
          first.verdicts.map(v => v.code),
          ['spliced', 'spliced'],
        );
        bed.path.control.on_full = ON_FULL.UNPROTECTED;
        await waitFor('it to go on', 20_000, () => (flow()?.in_end ?? 0n) > 2n << 20n || undefined);
        t.is(bed.path.stats().UNLOGGED_SHARE, 1);
        t.like(await up.result, { ok: true, bytes }, 'to its end');
        const again = startPeer(bed, 'sink', 100 * bytes, 4 << 20);
        await waitFor(
          'another to go beyond its share',
          20_000,
          () => bed.path.stats().UNLOGGED_SHARE === 2 || undefined,
        );
        await bed.reprotect(slot => servePeer(bed, slot, [SINK, CHAT]));
        const { verdicts } = await bed.failover();
        const open = verdicts.filter(v => v.code !== 'closed');
        t.deepEqual(open.map(v => [v.port, v.outcome, v.reason]).sort(), [
          [SINK, 'lost', 'unprotected since its share of the log was used up'],
          [CHAT, 'kept', 'spliced'],
        ]);
        t.false((await again.result).ok);
        chat.child.kill('SIGUSR2');
        t.like(await chat.result, { ok: true });
        t.true([...bed.path.flows()].every(({ flow: f }) => f.state !== STATE.REPLAYING));
        t.is(janitor.said.filter(line => line.startsWith('connection.limited')).length, 1);
      } finally {
        janitor.stop();
      }
    });
  },
);
