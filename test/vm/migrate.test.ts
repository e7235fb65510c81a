/** Planned changes of the active guest under load: nobody's connection is broken, nobody notices. */
import test from 'ava';
import type { MigrationReport } from '../../supervisor/api/types.js';
import { waitFor } from '../lib/run.js';
import { allAtWork, killDaemon, LONG_LOAD, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';

const config = { protocols: { 80: 'http', 8080: 'http' } };
const load = { ...LONG_LOAD, downloads: 4, uploads: 3, loops: 6 };

async function migrate({ supervisor, tag }: Stage, ...options: string[]): Promise<MigrationReport> {
  const { stdout } = await supervisor.command(['migrate', tag, ...options], true);
  return JSON.parse(stdout) as MigrationReport;
}

const primaryOf = async ({ supervisor, tag }: Stage): Promise<string> =>
  guestOf(await supervisor.status(tag), 'primary').name;

test('there, back by its deadline, and failed by a fault: each connection goes on', async t => {
  await undisturbed(t, { tag: 'migrate', config, load }, async stage => {
    const { supervisor, tag } = stage;
    const [first, second] = [await primaryOf(stage), guestOf(await supervisor.status(tag), 'backup').name];

    allAtWork(t, stage, 'before the migration');
    const there = await migrate(stage, '--drain', '2s');
    t.like(there, { outcome: 'done', from: first, to: second, lost: 0 });
    t.true(there.moved >= load.loops, `${there.moved} moved between two requests`);
    t.is(there.replayed, load.downloads + load.uploads);
    t.log(`there: ${there.moved} moved, ${there.replayed} replayed, ${there.endedAt - there.startedAt} ms`);
    const after = await supervisor.protectedAgain(tag);
    t.is(guestOf(after, 'primary').name, second);
    t.is(guestOf(after, 'backup').name, first, 'it waits as the backup, and none was booted');

    allAtWork(t, stage, 'before the second');
    const aborted = await migrate(stage, '--drain', '1s', '--deadline-policy', 'abort');
    t.like(aborted, { outcome: 'aborted', to: second, lost: 0 });
    t.is(await primaryOf(stage), second);
    await supervisor.protectedAgain(tag);

    allAtWork(t, stage, 'before the third');
    // The daemon that it asks is killed.
    const third = migrate(stage, '--drain', '10m', '--deadline-policy', 'wait').catch(() => undefined);
    await waitFor('both to serve', 30_000, async () => {
      const { migration } = await supervisor.status(tag);
      return (migration && migration.moved >= load.loops && migration.left > 0) || undefined;
    });
    const next = guestOf(await supervisor.status(tag), 'primary');
    t.is(next.name, first);
    await killDaemon(supervisor);
    await third;
    await supervisor.command(['up']);
    const { phase, migration } = await supervisor.status(tag);
    t.is(phase, 'migrating', 'its successor goes on with it');
    t.like(migration, { from: second, to: first, policy: 'wait', lost: 0 });
    process.kill(next.pid!, 'SIGKILL');
    await waitFor('the end of the migration', 30_000, async () => {
      const events = await supervisor.events();
      return events.some(({ type }) => type === 'migration.failed') || undefined;
    });
    await supervisor.protectedAgain(tag);
    t.is(await primaryOf(stage), second, 'the one that was being left has taken over');
    t.is((await supervisor.status(tag)).recoveries, 1);
  });
});
