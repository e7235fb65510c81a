/** The guest is dead and no other is ready: nobody but the data path is there. Then, and when the log is full, nothing is lost silently. */
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { resetsToClient } from '../../hypervisor-shim/datapath/frames.js';
import { type Flow, OP, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { Capture } from '../lib/capture.js';
import { summarize } from '../lib/gaps.js';
import { SERVICE_ADDRESS } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { type BedOptions, GUEST_MAC, NetnsBed } from './lib/bed.js';
import { type Client, servePeer, startPeer } from './lib/clients.js';
import { CHAT, SINK } from './lib/peer.js';

const PORTS = [SINK, CHAT];
/** Long enough for a client to retransmit or probe a few times, each pause twice the one before. */
const OUTAGE_MS = 8000;
/** A client that waits for its own timer after such an outage waits longer. */
const WAKE_MS = 2000;

async function onBed(
  t: ExecutionContext,
  tag: string,
  options: Partial<BedOptions>,
  body: (bed: NetnsBed, start: (slot: number) => Promise<void>) => Promise<void>,
): Promise<void> {
  const bed = await NetnsBed.create(tag, { ports: PORTS, logMiB: 96, ...options });
  const start = (slot: number) => servePeer(bed, slot, PORTS);
  try {
    await start(0);
    await start(1);
    await body(bed, start);
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(tag), []);
}

const swap = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);
const flowsTo = (bed: NetnsBed, port: number): Flow[] =>
  [...bed.path.flows()].map(({ flow }) => flow).filter(flow => flow.key.lport === swap(port));

const moved = (bed: NetnsBed, port: number, bytes: number): Promise<true> =>
  waitFor(`${bytes} bytes to port ${port}`, 20_000, () =>
    flowsTo(bed, port).some(flow => Number(flow.in_end) > bytes) ? true : undefined,
  );

/** The client kernel's timers of its connections to a port, as `ss` words them: `on`, `keepalive`, `persist`. */
async function timers(bed: NetnsBed, port: number): Promise<string[]> {
  const { stdout } = await bed.lab.exec(bed.client.name, ['ss', '-Htno', 'dport', '=', `:${port}`]);
  return [...stdout.matchAll(/timer:\((\w+),/g)].map(match => match[1]!);
}

test.serial('no guest for a while: clients wait, and go on at once when there is one', async t => {
  await onBed(t, 'held', {}, async bed => {
    const capture = await Capture.start(bed.lab, bed.client);
    const bytes = 24 << 20;
    const up = startPeer(bed, 'sink', bytes, 4 << 20);
    const chat = startPeer(bed, 'chat', 40, 3000, 200);
    await moved(bed, SINK, 4 << 20);
    bed.path.fence(bed.active);
    await waitFor('the clients to be told that the window is closed', 10_000, async () => {
      return (await timers(bed, SINK)).includes('persist') || undefined;
    });
    await sleep(OUTAGE_MS);
    t.deepEqual(
      await timers(bed, SINK),
      ['persist'],
      'no data is sent again and again: none is unacknowledged',
    );
    const before = flowsTo(bed, SINK)[0]!;
    t.is(before.in_acked, before.in_end, 'what was sent in the outage is acknowledged');
    const recovery = await bed.failover();
    t.deepEqual(
      recovery.verdicts.map(v => v.reason),
      ['spliced', 'spliced'],
    );
    const wokenAt = performance.now();
    await waitFor('the upload to go on', 10_000, () => {
      return flowsTo(bed, SINK)[0]!.in_end > before.in_end || undefined;
    });
    t.true(performance.now() - wokenAt < WAKE_MS, 'the client was woken, not left to its timer');
    t.like(await up.result, { ok: true, bytes });
    t.like(await chat.result, { ok: true, rounds: 40 });
    await capture.stop();
    t.like(summarize(capture.trace(PORTS), 2), { connections: 2, resets: 0, reconnects: 0 });
  });
});

test.serial('the backup is lost during the replay: connections wait for the next one', async t => {
  await onBed(t, 'twice', {}, async (bed, start) => {
    const capture = await Capture.start(bed.lab, bed.client);
    const bytes = 16 << 20;
    const ups = [1, 2, 3].map(() => startPeer(bed, 'sink', bytes, 6 << 20));
    const chats = [1, 2, 3, 4].map(() => startPeer(bed, 'chat', 100, 3000, 50));
    await Promise.all(chats.map(chat => chat.open));
    await waitFor('the uploads', 20_000, () => {
      return flowsTo(bed, SINK).filter(flow => Number(flow.in_end) > 4 << 20).length === 3 || undefined;
    });
    const first = bed.failover();
    // Not a timer of the usual length: all may be over within some ten ms.
    const halfDone = () => {
      const states = [...bed.path.flows()].map(({ flow }) => flow.state);
      if (!states.includes(STATE.SPLICED) || !states.includes(STATE.REPLAYING)) return undefined;
      bed.path.fence(bed.active);
      return true;
    };
    await waitFor('the replay to be half done', 20_000, halfDone, 1);
    const { fenced } = await first;
    t.true(fenced);
    await bed.reprotect(start);
    const second = await bed.failover();
    t.deepEqual(
      second.verdicts.filter(v => v.outcome === 'lost'),
      [],
    );
    t.is(second.verdicts.length, 7, 'those that were spliced already are replayed again');
    for (const up of ups) t.like(await up.result, { ok: true, bytes });
    for (const chat of chats) t.like(await chat.result, { ok: true, rounds: 100 });
    await capture.stop();
    t.like(summarize(capture.trace(PORTS), 7), { connections: 7, resets: 0, reconnects: 0 });
  });
});

test.serial('a lost connection ends for a client that does not believe the first reset', async t => {
  await onBed(t, 'lost', {}, async bed => {
    const chat = startPeer(bed, 'chat', 1, 1000, 0, 60_000);
    await chat.open;
    const [{ id, flow }] = [...bed.path.flows()] as [{ id: number; flow: Flow }];
    bed.path.transition(OP.LOSE, id, flow.generation);
    // As if the client had got a part of what was on its way to it: the resets lie above what it expects.
    flow.out_acked += 700n;
    flow.out_sent = flow.out_acked;
    const ends = { guestMac: Buffer.from(GUEST_MAC.replaceAll(':', ''), 'hex'), address: SERVICE_ADDRESS };
    const packets = native.packetSocket();
    for (const frame of resetsToClient(flow, ends)) {
      native.packetSend(packets, bed.path.control.wire_ifindex, frame);
    }
    native.closeFd(packets);
    t.like(await chat.result, { ok: false, error: 'read ECONNRESET' });
    t.is(bed.path.stats().ANSWERED, 1, 'its challenge was answered');
  });
});

/** More than the log holds. */
const LARGE = 12 << 20;

test.serial('a full log, back-pressure: the upload waits for room, others go on', async t => {
  await onBed(t, 'full', { logMiB: 8 }, async bed => {
    const chat = startPeer(bed, 'chat', 60, 3000, 50);
    await chat.open;
    const up = startPeer(bed, 'sink', LARGE, 100 << 20);
    await waitFor('the log to be full', 20_000, () => bed.path.stats().DROP_LOG_FULL > 3 || undefined);
    t.like(await chat.result, { ok: true, rounds: 60 });
    t.is(bed.path.stats().UNLOGGED, 0);
    const { in_end, g_ack } = flowsTo(bed, SINK)[0]!;
    t.true(in_end < BigInt(LARGE) && g_ack <= in_end);
    up.child.kill('SIGKILL');
    await up.result;
  });
});

test.serial(
  'a full log, unprotected: the upload goes on, and is lost at the next fault; others are kept',
  async t => {
    await onBed(t, 'unlog', { logMiB: 8, onFull: 'unprotected' }, async (bed, start) => {
      const chat = startPeer(bed, 'chat', 200, 3000, 50);
      await chat.open;
      t.like(await startPeer(bed, 'sink', LARGE, 100 << 20).result, { ok: true, bytes: LARGE });
      t.is(bed.path.stats().UNLOGGED, 1);
      const up: Client = startPeer(bed, 'sink', 4 * LARGE, 8 << 20);
      await waitFor('the second upload to leave the log', 30_000, () => {
        return bed.path.stats().UNLOGGED === 2 || undefined;
      });
      const recovery = await bed.failover();
      const lost = recovery.verdicts.filter(v => v.outcome === 'lost');
      t.deepEqual(
        lost.map(v => [v.port, v.reason]),
        [[SINK, 'unprotected since the log was full']],
      );
      t.like(await up.result, { ok: false });
      t.regex((await up.result).error ?? '', /ECONNRESET|EPIPE/);
      await bed.reprotect(start);
      await bed.failover();
      t.like(await chat.result, { ok: true, rounds: 200 });
    });
  },
);
