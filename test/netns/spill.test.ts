/** More than the log's memory holds: input in files, spilled, replayed, adopted; and what happens when those are full or damaged. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { type Flow, OP } from '../../hypervisor-shim/datapath/layout.generated.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { type BedOptions, NetnsBed } from './lib/bed.js';
import { type Client, servePeer, startPeer } from './lib/clients.js';
import { CHAT, SINK } from './lib/peer.js';

const PORTS = [SINK, CHAT];
const MIB = 1 << 20;
/** At full size, in `make verify`. */
const LONG = Boolean(process.env.HOLDFAST_LONG);
const MORTAL = fileURLToPath(new URL('./lib/mortal-spiller.js', import.meta.url));

type Start = (slot: number) => Promise<void>;

async function onBed(
  t: ExecutionContext,
  tag: string,
  options: Partial<BedOptions>,
  body: (bed: NetnsBed, start: Start) => Promise<void>,
): Promise<void> {
  const bed = await NetnsBed.create(tag, { ports: PORTS, logMiB: 32, spillMiB: 1024, ...options });
  const start = (slot: number) => servePeer(bed, slot, PORTS);
  try {
    await start(0);
    await start(1);
    await body(bed, start);
    await bed.stopSpiller();
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(tag), []);
}

const swap = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);
const uploads = (bed: NetnsBed): Flow[] =>
  [...bed.path.flows()].map(({ flow }) => flow).filter(flow => flow.key.lport === swap(SINK));

const arrived = (bed: NetnsBed, bytes: number, of = 1): Promise<true> =>
  waitFor(`${bytes} bytes of ${of} uploads`, 120_000, () =>
    uploads(bed).filter(({ in_end }) => Number(in_end) >= bytes).length >= of ? true : undefined,
  );

async function failover(t: ExecutionContext, bed: NetnsBed, connections: number): Promise<void> {
  const { verdicts } = await bed.failover(120_000);
  t.deepEqual(
    verdicts.map(v => v.reason),
    Array(connections).fill('spliced'),
  );
}

const ROUNDS = 20;

/** A conversation that stands still in its midst until `goesOn`. */
async function midChat(bed: NetnsBed): Promise<Client> {
  const chat = startPeer(bed, 'chat', ROUNDS, 3000, 50);
  await chat.open;
  chat.child.kill('SIGSTOP');
  return chat;
}

async function goesOn(t: ExecutionContext, chat: Client): Promise<void> {
  chat.child.kill('SIGCONT');
  t.like(await chat.result, { ok: true, rounds: ROUNDS });
}

const filesOf = (bed: NetnsBed): string[] => readdirSync(bed.spillDirectory);

test.serial(
  'an upload of many times the log is kept, when the fault comes near its end and again',
  async t => {
    await onBed(t, 'spill', { spillMiB: 2048 }, async (bed, start) => {
      const bytes = LONG ? 1024 * MIB : 256 * MIB;
      const chat = await midChat(bed);
      const up = startPeer(bed, 'sink', bytes, 80 * MIB);
      await arrived(bed, bytes * 0.85);
      t.true(bed.spiller!.state.moved > bytes / 2);
      await failover(t, bed, 2);
      up.child.kill('SIGSTOP');
      await bed.reprotect(start);
      t.true(Number(uploads(bed)[0]!.in_end) < bytes);
      up.child.kill('SIGCONT');
      await failover(t, bed, 2);
      t.like(await up.result, { ok: true, bytes });
      await goesOn(t, chat);
      await waitFor(
        'the file to go with its connection',
        30_000,
        () => filesOf(bed).length === 0 || undefined,
      );
      t.false(bed.spiller!.state.full);
    });
  },
);

/** Spills in a process of its own until it is killed. */
async function dies(bed: NetnsBed, step: 'written' | 'freed', nth: number): Promise<void> {
  const argv = [MORTAL, bed.path.pinDirectory, bed.spillDirectory, `${1024 * MIB}`, step, `${nth}`];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'ignore', 'inherit'] });
  const [, signal] = await once(child, 'exit');
  if (signal !== 'SIGKILL') throw new Error(`the spiller ended with ${signal}`);
}

test.serial('killed with SIGKILL in the middle of its work, thrice; adopted; then a failover', async t => {
  await onBed(t, 'spkill', {}, async bed => {
    await bed.stopSpiller();
    const bytes = 96 * MIB;
    const up = startPeer(bed, 'sink', bytes, 40 * MIB);
    await dies(bed, 'written', 5);
    await dies(bed, 'freed', 7);
    await dies(bed, 'written', 1);
    const [size] = filesOf(bed).map(name => statSync(`${bed.spillDirectory}/${name}`).size);
    t.true(size! > 4 * MIB);
    await bed.startSpiller();
    t.is(bed.spiller!.state.bytes, size!, 'what the dead one wrote is taken over');
    await arrived(bed, bytes * 0.9);
    await failover(t, bed, 1);
    t.like(await up.result, { ok: true, bytes });
  });
});

test.serial(
  'damaged and cut off files: those connections are lost with a reason, the others are kept',
  async t => {
    await onBed(t, 'spbad', { logMiB: 16 }, async bed => {
      const chat = await midChat(bed);
      const slow: Client[] = [1, 2, 3].map(() => startPeer(bed, 'sink', 32 * MIB, 8 * MIB));
      await arrived(bed, 12 * MIB, 3);
      await waitFor('three files', 20_000, () => filesOf(bed).length === 3 || undefined);
      await bed.stopSpiller();
      const [damaged, cut] = filesOf(bed).map(name => `${bed.spillDirectory}/${name}`) as [string, string];
      const bytes = readFileSync(damaged);
      bytes[bytes.length >>> 1]! ^= 1;
      writeFileSync(damaged, bytes);
      writeFileSync(cut, readFileSync(cut).subarray(0, -5000));
      const { verdicts } = await bed.failover();
      const lost = verdicts.filter(v => v.outcome === 'lost');
      t.deepEqual([verdicts.length, lost.length], [4, 2]);
      t.deepEqual(lost.map(v => [v.code, /is damaged|is cut off/.exec(v.reason)?.[0]]).sort(), [
        ['log-missing', 'is cut off'],
        ['log-missing', 'is damaged'],
      ]);
      await bed.startSpiller();
      const ends = await Promise.all(slow.map(client => client.result));
      t.deepEqual(ends.map(({ ok }) => ok).sort(), [false, false, true]);
      await goesOn(t, chat);
    });
  },
);

/** More than memory and files hold. */
const LARGE = 40 * MIB;

test.serial('files full, back-pressure: the upload waits, others are kept in a failover', async t => {
  await onBed(t, 'spbp', { logMiB: 8, spillMiB: 8 }, async (bed, start) => {
    const chat = await midChat(bed);
    const up = startPeer(bed, 'sink', LARGE, 100 * MIB);
    await waitFor('files and log to be full', 60_000, () => {
      return (bed.spiller!.state.full && bed.path.stats().DROP_LOG_FULL > 3) || undefined;
    });
    t.is(bed.path.stats().UNLOGGED, 0);
    await failover(t, bed, 2);
    t.true(Number(uploads(bed)[0]!.in_end) < LARGE);
    await bed.reprotect(start);
    const [upload] = [...bed.path.flows()].filter(({ flow }) => flow.key.lport === swap(SINK));
    bed.path.transition(OP.LOSE, upload!.id, upload!.flow.generation);
    up.child.kill('SIGKILL');
    await up.result;
    bed.path.reap(0n);
    const next = startPeer(bed, 'sink', 10 * MIB, 100 * MIB);
    t.like(await next.result, { ok: true }, 'its end made room');
    await goesOn(t, chat);
  });
});

test.serial(
  'files full, unprotected: newcomers go on outside the log, what is protected stays so',
  async t => {
    await onBed(t, 'spun', { logMiB: 8, spillMiB: 16, onFull: 'unprotected' }, async bed => {
      const chat = await midChat(bed);
      const kept = startPeer(bed, 'sink', 14 * MIB, 12 * MIB);
      await arrived(bed, 13 * MIB);
      t.is(bed.path.stats().UNLOGGED, 0, 'memory was full of it, the files had room');
      kept.child.kill('SIGSTOP'); // open, and done for now
      const late = startPeer(bed, 'sink', 4 * LARGE, 16 * MIB);
      await waitFor(
        'the newcomer to leave the log',
        60_000,
        () => bed.path.stats().UNLOGGED === 1 || undefined,
      );
      const { verdicts } = await bed.failover();
      const lost = verdicts.filter(v => v.outcome === 'lost').map(v => v.reason);
      t.deepEqual(lost, ['unprotected since the log was full']);
      t.is(verdicts.length, 3);
      t.like(await late.result, { ok: false });
      kept.child.kill('SIGCONT');
      t.like(await kept.result, { ok: true, bytes: 14 * MIB });
      await goesOn(t, chat);
    });
  },
);
