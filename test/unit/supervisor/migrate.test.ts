import test from 'ava';
import { laboratory } from './laboratory.js';

test('holdfast migrate: its words, its exit status, and what it does not understand', async t => {
  const { run, config } = laboratory(t);
  await run('up', config);
  const done = await run('migrate', 'web', '--drain', '1.5s', '--deadline-policy', 'wait');
  t.is(done.code, 0, done.stderr);
  t.is(
    done.stdout,
    'migration from web-a to web-b: done after 1.0 s\nconnections: 3 moved, 1 replayed, 0 lost\n',
  );
  const json = JSON.parse((await run('migrate', 'web', '--json')).stdout);
  t.like(json, { policy: 'replay', outcome: 'done', deadlineAt: 31_000 });
  const abort = await run('migrate', 'web', '--abort', '--json');
  t.deepEqual([abort.code, JSON.parse(abort.stderr).code], [1, 'HF_MIGRATE_NONE']);
  for (const words of [
    ['--drain', '5'],
    ['--drain', '25h'],
    ['--drain', '-1s'],
    ['--deadline-policy', 'x'],
  ])
    t.is((await run('migrate', 'web', ...words)).code, 2, words.join(' '));
});
