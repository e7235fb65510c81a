import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { laboratory, lines } from './laboratory.js';

test('up tells why the daemon did not start', async t => {
  const { run } = laboratory(t, { FAKE_START_ERROR: 'no libvirt' });
  const up = await run('up', '--json');
  t.is(up.code, 1);
  t.deepEqual(JSON.parse(lines(up.stderr).at(-1)!), {
    code: 'HF_LIBVIRT_UNREACHABLE',
    message: 'no libvirt',
    remedy: 'Start libvirtd.',
  });
});

test('several at once start one daemon', async t => {
  const { run } = laboratory(t);
  const results = await Promise.all([1, 2, 3].map(() => run('up', '--json')));
  t.deepEqual(
    results.map(result => result.code),
    [0, 0, 0],
    results.map(result => result.stderr).join(),
  );
  t.is(new Set(results.map(result => JSON.parse(result.stdout).pid)).size, 1);
});

test('a killed daemon is followed by a new one; one state directory has one daemon', async t => {
  const { run, dir } = laboratory(t);
  const first = JSON.parse((await run('up', '--json')).stdout);
  const other = await run('up', '--json', '--socket', join(dir, 'other.sock'));
  t.is(JSON.parse(lines(other.stderr).at(-1)!).code, 'HF_STATE_IN_USE');
  process.kill(first.pid, 'SIGKILL');
  const second = JSON.parse((await run('up', '--json')).stdout);
  t.true(second.started);
  t.not(second.pid, first.pid);
});

test('foreground: serves until SIGTERM, takes nothing down, and ends with 0', async t => {
  const { run, start, config, state } = laboratory(t);
  const child = start('up', '--foreground', config);
  const closed = once(child, 'close');
  child.stdout!.resume();
  child.stderr!.resume();
  for (let i = 0; i < 100 && !(await run('status')).stdout.includes('protected'); i++) {
    await sleep(50);
  }
  t.is((await run('up', '--foreground')).code, 1);
  const follower = start('events', '--follow', '--json');
  let followed = '';
  follower.stdout!.setEncoding('utf8').on('data', text => {
    followed += text;
  });
  const followerClosed = once(follower, 'close');
  await once(follower.stdout!, 'data');
  child.kill('SIGTERM');
  t.is((await closed)[0], 0);
  t.is((await followerClosed)[0], 0);
  t.is(JSON.parse(lines(followed).at(-1)!).type, 'daemon.stopping');
  t.false(readFileSync(join(state, 'events.ndjson'), 'utf8').includes('service.down'));
});
