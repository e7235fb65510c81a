import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import test from 'ava';
import { MINIMAL } from './helpers.js';
import { laboratory, lines } from './laboratory.js';

test('from up to down', async t => {
  const { run, config, state, socket } = laboratory(t);
  t.is((await run('status')).code, 1);

  const up = await run('up', config);
  t.is(up.code, 0, up.stderr);
  t.regex(up.stderr, /daemon started, pid \d+/);
  t.regex(up.stderr, /#\d+ {2}web {2}service\.starting {2}guests boot/);
  t.regex(up.stderr, /service\.protected/);
  t.regex(
    up.stdout,
    /^SERVICE +PHASE .*\nweb +protected +192\.0\.2\.10\/24 +80 +tcg +1 .*75%, 5 MiB in files$/m,
  );

  const again = await run('up', '--json');
  t.is(again.code, 0);
  t.like(JSON.parse(again.stdout), { started: false, services: [], stateDir: state, socket });
  t.regex((await run('up')).stderr, /already running/);

  const status = await run('status', 'web', '--json');
  t.is(JSON.parse(status.stdout)[0].name, 'web');
  t.is(status.stderr, '');
  t.is((await run('status', 'none')).code, 1);
  t.regex(
    (await run('connections')).stdout,
    /^SERVICE +CLIENT +PORT .*\nweb +192\.0\.2\.50:1000 +80 +tracked/,
  );

  const drill = await run('drill', 'web', '--fault', 'guest-panic');
  t.is(drill.code, 0);
  t.deepEqual(lines(drill.stdout), [
    'recovery of web from guest-panic, now epoch 2',
    'TIME MS  STEP',
    '    0.0  fault injected',
    '   12.3  detected',
    '   13.1  fenced',
    '   15.0  backup resumed',
    '   22.1  first splice',
    '  105.0  last splice',
    '',
    'connections: 2 kept, 0 lost',
    '',
    'COUNT  VERDICT  REASON   MAX SPLICE MS',
    '    2  kept     spliced           92.0',
  ]);
  t.like(JSON.parse((await run('drill', 'web', '--fault', 'vm-kill', '--json')).stdout), { kept: 2 });

  const events = lines((await run('events', '--json', '--since', '2')).stdout).map(line => JSON.parse(line));
  t.is(events[0].seq, 2);
  t.true(events.some(event => event.type === 'recovery.done'));

  t.is((await run('down', 'web')).stdout, 'web is down\n');
  t.regex((await run('status')).stdout, /no services/);
  const down = await run('down', '--json');
  t.deepEqual(JSON.parse(down.stdout), { service: null, daemonEnded: true });
  t.false(existsSync(socket));
  t.regex(readFileSync(join(state, 'supervisor.log'), 'utf8'), /daemon ended/);
});

test('a drill that loses connections fails and lists them', async t => {
  const { run, config } = laboratory(t, { FAKE_LOST: '22' });
  await run('up', config);
  const drill = await run('drill', 'web', '--fault', 'vm-kill');
  t.is(drill.code, 1);
  t.regex(drill.stdout, /2 kept, 22 lost/);
  t.regex(drill.stdout, / 22 {2}lost +output differs/);
  t.regex(drill.stdout, /192\.0\.2\.51:2019 +80 +10 +20 +output differs\nand 2 more/);
});

test('wrong usage and configuration end with 2, before anything is started', async t => {
  const { run, dir, state } = laboratory(t);
  const bad = join(dir, 'bad.yaml');
  writeFileSync(bad, MINIMAL.replace('[80]', '[0]'));
  const config = await run('up', bad);
  t.is(config.code, 2);
  t.regex(
    config.stderr,
    /^holdfast: HF_CONFIG_INVALID: .*bad\.yaml:3:9: ports\[0\] is 0.*\n {2}remedy: Set ports\[0\]/,
  );
  t.false(existsSync(state));
  t.is((await run('protect', join(dir, 'none.yaml'))).code, 2);
  for (const args of [
    [],
    ['drill', 'web'],
    ['drill', 'web', '--fault', 'x'],
    ['events', '--since', '-1'],
    ['frob'],
    ['status', 'a', 'b'],
  ]) {
    const { code, stderr, stdout } = await run(...args, '--json');
    t.is(code, 2, args.join(' '));
    t.is(stdout, '');
    t.is(JSON.parse(stderr).code, 'HF_USAGE');
  }
  t.regex((await run('frob')).stderr, /unknown command 'frob'/);
});

test('--version and --help', async t => {
  const { run } = laboratory(t);
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
  t.deepEqual(await run('--version'), { code: 0, stdout: `${version}\n`, stderr: '' });
  const help = await run('--help');
  t.is(help.code, 0);
  t.regex(help.stdout, /Exit codes:/);
  t.notRegex(help.stdout, /daemon .*\[options\]$/m);
});

test('an error as JSON goes to stderr', async t => {
  const { run } = laboratory(t);
  const { code, stdout, stderr } = await run('status', '--json');
  t.is(code, 1);
  t.is(stdout, '');
  t.like(JSON.parse(stderr), { code: 'HF_NOT_RUNNING' });
});

test('a reader that has seen enough is no error', async t => {
  const { run, start } = laboratory(t);
  await run('up');
  const child = start('events', '--follow');
  let stderr = '';
  child.stderr!.on('data', text => {
    stderr += text;
  });
  const closed = once(child, 'close');
  await once(child.stdout!, 'data');
  child.stdout!.destroy();
  // The next event is what it cannot write.
  await run('down');
  t.is((await closed)[0], 0);
  t.is(stderr, '');
});

test('the launcher works through a link, and says what is missing', t => {
  const { dir } = laboratory(t);
  const link = join(dir, 'hf');
  symlinkSync(resolve('supervisor/holdfast'), link);
  t.is(spawnSync(link, ['--help']).status, 0);
  mkdirSync(join(dir, 'checkout/supervisor'), { recursive: true });
  copyFileSync('supervisor/holdfast', join(dir, 'checkout/supervisor/holdfast'));
  const bare = spawnSync(join(dir, 'checkout/supervisor/holdfast'), { encoding: 'utf8' });
  t.is(bare.status, 1);
  t.regex(bare.stderr, /is missing; run `npm ci` in .*checkout/);
});
