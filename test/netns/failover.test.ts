import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { knownContent } from '../../images/content.js';
import { Capture } from '../lib/capture.js';
import { summarize } from '../lib/gaps.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { download, servePeer, startPeer } from './lib/clients.js';
import { CHAT, RANDOM, SINK } from './lib/peer.js';

const TAG = 'failover';
const PORTS = [80, SINK, CHAT, RANDOM];
const FILE_BYTES = 48 << 20;
/** More than nginx sends before it looks at its client again. */
const PART_BYTES = 8 << 20;
let bed: NetnsBed;
let root: string;
let sha256: string;

const startGuest = async (slot: number) => {
  await bed.nginx(slot, root);
  await servePeer(bed, slot, [SINK, CHAT, RANDOM]);
};

test.before(async () => {
  bed = await NetnsBed.create(TAG, { ports: PORTS, logMiB: 192 });
  root = `${bed.lab.dir}/www`;
  mkdirSync(root);
  const body = Buffer.concat([...knownContent(TAG, 'file', FILE_BYTES)]);
  writeFileSync(`${root}/file`, body);
  writeFileSync(`${root}/part`, body.subarray(0, PART_BYTES));
  sha256 = createHash('sha256').update(body).digest('hex');
  await startGuest(0);
  await startGuest(1);
});

test.afterEach.always(async () => {
  if (bed) await bed.reprotect(startGuest);
});

test.after.always(async t => {
  await bed?.dispose();
  t.deepEqual(await leftovers(TAG), []);
});

/** Runs `body` under a capture at the client; asserts that no connection was reset or opened twice. */
async function captured(t: ExecutionContext, connections: number, body: () => Promise<void>): Promise<void> {
  const capture = await Capture.start(bed.lab, bed.client);
  await body();
  await capture.stop();
  t.like(summarize(capture.trace(PORTS), connections), { connections, resets: 0, reconnects: 0 });
}

test.serial('a download goes on byte by byte', async t => {
  await captured(t, 1, async () => {
    const d = download(bed, '/file', '20M');
    await waitFor('half of the file', 20_000, () => d.moved() > FILE_BYTES / 3 || undefined);
    const recovery = await bed.failover();
    t.deepEqual(
      recovery.verdicts.map(v => [v.outcome, v.reason]),
      [['kept', 'spliced']],
    );
    t.true(d.moved() < FILE_BYTES, 'the fault came in the middle');
    t.like(await d.result, { code: 0, bytes: FILE_BYTES, sha256 });
  });
});

test.serial('a former guest that lives on, and closes its connections, is heard by nobody', async t => {
  await captured(t, 2, async () => {
    const transfers = [download(bed, '/file', '20M'), download(bed, '/file', '20M')];
    await waitFor('a third of each file', 20_000, () => {
      return transfers.every(({ moved }) => moved() > FILE_BYTES / 3) || undefined;
    });
    const former = bed.active;
    await bed.failover();
    // Its kernel sends again what nobody acknowledges, and then that its services have ended.
    const dropped = () => bed.path.stats().DROP_ZOMBIE;
    const before = dropped();
    await bed.endServices(former);
    await waitFor('its last words', 20_000, () => dropped() >= before + transfers.length || undefined);
    const others = bed.path.stats().DROP_OTHER;
    const ping = ['busybox', 'ping', '-c', '1', '-W', '1', bed.client.address];
    const { code } = await bed.lab.exec(bed.guest(former), ping, { allowFailure: true });
    t.not(code, 0);
    t.true(bed.path.stats().DROP_OTHER > others);
    for (const { result } of transfers) t.like(await result, { code: 0, bytes: FILE_BYTES, sha256 });
  });
});

test.serial(
  'urgent data is replayed as urgent data: the service finds it beside its stream, not in it',
  async t => {
    await captured(t, 1, async () => {
      const bytes = 100_000;
      const up = startPeer(bed, 'urgent', bytes);
      const sent = BigInt(2 * bytes + 1);
      await up.open;
      await waitFor('two parts and the urgent byte', 20_000, () => {
        return (
          [...bed.path.flows()].some(({ flow }) => flow.in_end === sent && flow.g_ack === sent) || undefined
        );
      });
      const recovery = await bed.failover();
      t.deepEqual(
        recovery.verdicts.map(v => v.outcome),
        ['kept'],
      );
      up.child.kill('SIGUSR2');
      t.like(await up.result, { ok: true, bytes: 3 * bytes });
    });
  },
);

test.serial('an upload goes on, and its half-close is replayed', async t => {
  await captured(t, 1, async () => {
    const bytes = 24 << 20;
    const up = startPeer(bed, 'sink', bytes, 12 << 20);
    await waitFor('a third of the upload', 20_000, () => {
      const [first] = [...bed.path.flows()].filter(e => Number(e.flow.in_end) > bytes / 3);
      return first && true;
    });
    const recovery = await bed.failover();
    t.deepEqual(
      recovery.verdicts.map(v => v.outcome),
      ['kept'],
    );
    t.like(await up.result, { ok: true, bytes });
  });
});

test.serial(
  'a protocol in which the server speaks first survives three failovers of the same connections',
  async t => {
    const rounds = 200;
    await captured(t, 10, async () => {
      const chats = Array.from({ length: 10 }, (_, i) => startPeer(bed, 'chat', rounds, 1000 + 3000 * i, 50));
      await Promise.all(chats.map(c => c.open));
      for (let n = 0; n < 3; n++) {
        const recovery = await bed.failover();
        t.deepEqual(
          recovery.verdicts.filter(v => v.outcome === 'lost'),
          [],
        );
        t.true(recovery.verdicts.filter(v => v.reason === 'spliced').length >= 9, `round ${n}`);
        if (n < 2) await bed.reprotect(startGuest);
      }
      for (const chat of chats) t.like(await chat.result, { ok: true, rounds });
    });
  },
);

test.serial('idle connections are still there', async t => {
  await captured(t, 20, async () => {
    const chats = Array.from({ length: 20 }, () => startPeer(bed, 'chat', 3, 5000, 0, 4000));
    await Promise.all(chats.map(c => c.open));
    const recovery = await bed.failover();
    t.is(recovery.verdicts.filter(v => v.reason === 'spliced').length, 20);
    for (const chat of chats) t.like(await chat.result, { ok: true, rounds: 3 });
  });
});

test.serial(
  'a connection whose output cannot be repeated is reset and said to be lost; others are kept',
  async t => {
    const random = startPeer(bed, 'random', 200, 20);
    const chat = startPeer(bed, 'chat', 100, 4000, 20);
    await waitFor('both in flight', 20_000, () => {
      const flows = [...bed.path.flows()].filter(e => e.flow.out_acked > 10_000n && e.flow.state === 1);
      return flows.length >= 2 || undefined;
    });
    const recovery = await bed.failover();
    const lost = recovery.verdicts.filter(v => v.outcome === 'lost');
    t.is(lost.length, 1);
    t.is(lost[0]!.port, RANDOM);
    t.regex(lost[0]!.reason, /output differs/);
    t.is(bed.path.stats().DIVERGED > 0, true);
    t.like(await random.result, { ok: false, error: 'read ECONNRESET' });
    t.like(await chat.result, { ok: true, rounds: 100 });
  },
);

test.serial(
  'a client that has all closes while no guest runs: its end comes after the answer again',
  async t => {
    await captured(t, 1, async () => {
      const client = startPeer(bed, 'fetch', PART_BYTES);
      await client.open;
      bed.path.fence(bed.active);
      const held = bed.path.stats().HELD;
      client.child.kill('SIGUSR2');
      await waitFor('its FIN', 10_000, () => bed.path.stats().HELD > held || undefined);
      // nginx breaks off its answer to a client that closes before it has all.
      const { verdicts } = await bed.failover();
      t.deepEqual(
        verdicts.map(v => v.outcome),
        ['kept'],
      );
      t.like(await client.result, { ok: true, bytes: PART_BYTES });
    });
  },
);

test.serial('a client that leaves while no guest runs is not replayed', async t => {
  const chat = startPeer(bed, 'chat', 1, 1000, 0, 60_000);
  await chat.open;
  bed.path.fence(bed.active);
  chat.child.kill('SIGKILL');
  await chat.result;
  await waitFor('the client to be gone', 10_000, () => {
    const [entry] = [...bed.path.flows()].filter(
      e => e.flow.fin_in !== 0xffff_ffff_ffff_ffffn || e.flow.rst_in,
    );
    return entry && true;
  });
  const recovery = await bed.failover();
  t.deepEqual(
    recovery.verdicts.filter(v => v.outcome === 'lost'),
    [],
  );
});

test.serial('new clients are served after a failover', async t => {
  await bed.failover();
  t.like(await download(bed, '/file', '100M').result, { code: 0, sha256 });
});
