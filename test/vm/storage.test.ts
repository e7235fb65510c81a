/** Storage that outlives the guest: a disk that was being written is handed over; a directory is shared; and the warning for none. */

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Client } from '../lib/client.js';
import { waitFor } from '../lib/run.js';
import { daemonPid, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';
import { makeUploadBody, type UploadBody } from '../lib/traffic.js';

const MOUNT = '/srv/data';
const SIZES = [1, 40_000, 150_000, 300_000, 1_000_003];
/** Length of the sink's answer. */
const ANSWER = 65;
const load = { downloads: 1, downloadRate: 800_000, uploads: 0, loops: 1, requests: 200 };

type Fault = 'guest-panic' | 'vm-kill' | 'interrupted';
type Upload = { name: string; body: UploadBody };

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'hf-storage-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function uploads({ lab }: Stage, prefix: string, count: number): Upload[] {
  const bodies = SIZES.map(bytes => makeUploadBody(lab, bytes));
  return Array.from({ length: count }, (_, i) => ({
    name: `${prefix}-${i}`,
    body: bodies[i % bodies.length]!,
  }));
}

async function atLeast(client: Client, bytes: number): Promise<void> {
  await waitFor(`${client.plan.label} to be under way`, 60_000, () =>
    client.progress().moved >= bytes ? true : undefined,
  );
}

const sha256 = (data: string | Buffer): string => createHash('sha256').update(data).digest('hex');

/** Names of those that are not, byte by byte, below `root`. */
function missing(root: string, all: Upload[]): string[] {
  const same = ({ name, body }: Upload) => {
    try {
      return sha256(readFileSync(join(root, name))) === body.sha256;
    } catch {
      return false;
    }
  };
  return all.filter(upload => !same(upload)).map(({ name }) => name);
}

/**
 * Breaks the primary while uploads go on: some have ended, some are between two requests and one is in the middle of its body. Those
 * that ended have no connection any more that could be replayed: only the storage can have them afterwards. Returns all.
 */
async function storeThrough(t: ExecutionContext, stage: Stage, fault: Fault): Promise<Upload[]> {
  const { tag, traffic, supervisor } = stage;
  const early = uploads(stage, `early-${fault}`, 10);
  const busy = uploads(stage, `busy-${fault}`, 40);
  const large = { name: `large-${fault}`, body: makeUploadBody(stage.lab, 6 << 20) };
  await traffic.store(early, 20).result;
  const clients = [traffic.store(busy, 4), traffic.upload(large.body, 500_000, `/data/${large.name}`)];
  await atLeast(clients[0]!, 5 * ANSWER);
  await atLeast(clients[1]!, 1 << 20);
  const old = await supervisor.status(tag);
  t.false(
    clients.some(client => client.ended),
    `uploads are under way at ${fault}`,
  );
  if (fault === 'interrupted') await interrupt(stage);
  else {
    const { verdicts } = await supervisor.drill(tag, fault);
    t.deepEqual(
      verdicts.filter(verdict => verdict.outcome !== 'kept'),
      [],
    );
  }
  const status = await supervisor.protectedAgain(tag);
  t.is((await traffic.fetch(early).result).error, undefined, 'what had ended is there');
  t.is(guestOf(status, 'primary').name, guestOf(old, 'backup').name);
  return [...early, ...busy, large];
}

/** The supervisor is killed in the middle of the takeover, and another goes on with it. */
async function interrupt({ tag, supervisor }: Stage): Promise<void> {
  const pid = await daemonPid(supervisor);
  const log = join(supervisor.stateDir, 'events.ndjson');
  const count = () => readFileSync(log, 'utf8').split('"recovery.started"').length;
  const before = count();
  const drill = supervisor.drill(tag, 'guest-panic').catch(() => undefined);
  // Not a timer: the disk takes some hundred ms to be mounted.
  await waitFor('the takeover', 30_000, () => count() > before || undefined, 1);
  process.kill(pid, 'SIGKILL');
  await drill;
  await supervisor.command(['up']);
}

/** In `make verify`: others of this suite show most of it. */
const long = process.env.HOLDFAST_LONG ? test.serial : test.serial.skip;

test.serial(
  'a disk in use is handed over at a panic, and again when QEMU or the supervisor is killed',
  async t => {
    const folder = directory(t);
    const disk = join(folder, 'data.raw');
    writeFileSync(disk, '');
    truncateSync(disk, 256 << 20);
    execFileSync('mkfs.ext4', ['-q', disk]);
    const storage = { mode: 'handed-over', disk, mount: MOUNT };
    const all: Upload[] = [];
    await undisturbed(t, { tag: 'disk', load, config: { storage } }, async stage => {
      const { tag, supervisor } = stage;
      for (const fault of ['guest-panic', 'vm-kill', 'interrupted'] as const) {
        all.push(...(await storeThrough(t, stage, fault)));
        const status = await supervisor.status(tag);
        t.is(status.storage.holder, guestOf(status, 'primary').name);
      }
      const moves = (await supervisor.events()).filter(event => event.type === 'storage.moved');
      t.log(moves.map(({ message, data }) => `${message} ${JSON.stringify(data)}`));
    });
    // `down` was a power cut to the guest that had it.
    t.true(
      spawnSync('e2fsck', ['-p', disk]).status! <= 1,
      'the journal is played back, and nothing else is wrong',
    );
    const check = spawnSync('e2fsck', ['-fn', disk], { encoding: 'utf8' });
    t.is(check.status, 0, check.stdout);
    const copy = join(folder, 'copy');
    mkdirSync(copy);
    execFileSync('debugfs', ['-R', `rdump / ${copy}`, disk], { stdio: 'ignore' });
    t.deepEqual(missing(copy, all), []);
  },
);

test.serial('uploads survive in a shared directory', async t => {
  const shared = directory(t);
  chmodSync(shared, 0o755); // owners and modes are the host's, and nginx is not root
  const storage = { mode: 'shared', directory: shared, mount: MOUNT };
  const all: Upload[] = [];
  await undisturbed(t, { tag: 'share', load, config: { storage } }, async stage => {
    for (const fault of ['guest-panic', 'vm-kill'] as const)
      all.push(...(await storeThrough(t, stage, fault)));
  });
  t.deepEqual(missing(shared, all), []);
});

long('with storage none, a service that writes is reported, and only then', async t => {
  await undisturbed(
    t,
    { tag: 'volat', load: { ...load, downloadRate: 2_000_000, requests: 50 } },
    async stage => {
      const { tag, supervisor, traffic } = stage;
      const warnings = async () =>
        (await supervisor.events()).filter(event => event.type === 'storage.volatile');
      t.log(
        `grown by ${(await supervisor.status(tag)).storage.volatileBytes} bytes without a write of the service's`,
      );
      t.deepEqual(await warnings(), []);
      await traffic.store(uploads(stage, 'lost', 15), 20).result;
      const [warning] = await waitFor('the warning', 60_000, async () => {
        const found = await warnings();
        return found.length > 0 ? found : undefined;
      });
      t.is(warning!.data.guest, guestOf(await supervisor.status(tag), 'primary').name);
      await supervisor.drill(tag, 'guest-panic');
      t.is((await warnings()).length, 1);
    },
  );
});
