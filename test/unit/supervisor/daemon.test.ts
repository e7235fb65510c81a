import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
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

test('what stands where the control socket should be is no socket: refused, kept, and nothing beside it', async t => {
  const { run, dir, state } = laboratory(t);
  const file = join(dir, 'file');
  writeFileSync(file, 'precious');
  const folder = join(dir, 'folder');
  mkdirSync(folder);
  for (const path of [file, folder, join(file, 'below')]) {
    for (const words of [['up'], ['up', '--foreground'], ['daemon'], ['status'], ['down']]) {
      const { code, stderr } = await run(...words, '--json', '--socket', path);
      const error = JSON.parse(lines(stderr).at(-1)!);
      t.is(error.code, 'HF_SOCKET_PATH', `${words} ${path}: ${stderr}`);
      t.is(code, 2);
      t.notRegex(error.remedy, /holdfast up/);
    }
    t.false(existsSync(`${path}.lock`), path);
  }
  t.is(readFileSync(file, 'utf8'), 'precious');
  t.false(existsSync(join(state, 'lock')));
});

test('a state directory that cannot be used is named', async t => {
  const { run, dir } = laboratory(t);
  const file = join(dir, 'file');
  writeFileSync(file, '');
  for (const path of [file, join(file, 'below'), '/proc/x/y']) {
    for (const words of [['up'], ['up', '--foreground']]) {
      const { code, stderr } = await run(...words, '--json', '--state-dir', path);
      const error = JSON.parse(lines(stderr).at(-1)!);
      t.is(error.code, 'HF_STATE_DIR', stderr);
      t.true(error.message.includes(path));
      t.is(code, 2);
    }
  }
});

test('an option of the daemon’s that comes too late, or is none, is not passed over', async t => {
  const { run, dir, state } = laboratory(t);
  t.is((await run('up')).code, 0);
  const other = await run('up', '--json', '--state-dir', join(dir, 'other'));
  t.like(JSON.parse(lines(other.stderr).at(-1)!), { code: 'HF_DAEMON_OPTION' });
  t.is(other.code, 1);
  t.is((await run('up', '--state-dir', `${state}/`)).code, 0);
  await run('down');
  const bogus = laboratory(t, { HOLDFAST_LOG_LEVEL: 'bogus' });
  for (const words of [['up'], ['up', '--foreground']]) {
    const { code, stderr } = await bogus.run(...words, '--json');
    t.regex(JSON.parse(lines(stderr).at(-1)!).message, /^HOLDFAST_LOG_LEVEL is "bogus", expected debug/);
    t.is(code, 2);
  }
});

test('`up` fails if a service has failed', async t => {
  const { run, config } = laboratory(t, { FAKE_PHASE: 'failed' });
  t.is((await run('up', config)).code, 1);
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
