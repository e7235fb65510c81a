/** The whole of it on a Debian with systemd: faults of the machine, of the service, of the agent; and a shutdown from inside. */
import test from 'ava';
import { ask, killAgentPart, shell } from '../lib/guest-shell.js';
import { waitFor } from '../lib/run.js';
import { allAtWork, type Load, type Stage, undisturbed } from '../lib/stage.js';
import { guestOf } from '../lib/supervisor.js';
import { findStockDisk } from './disk.js';

/** Outlives the deaths of the agent's parts, on a host that does other things as well. */
const LOAD: Partial<Load> = {
  downloadRate: 400_000,
  uploadRate: 110_000,
  uploadMiB: 10,
  requests: 320,
  requestsPerSecond: 4,
  timeoutMs: 480_000,
};

const bootIdOf = async ({ supervisor, tag }: Stage) =>
  guestOf(await supervisor.status(tag), 'primary').bootId;

test.serial(
  'a Debian with systemd: deaths of the agent, of a worker, of the service, in place and by the backup',
  async t => {
    const { image, disk } = await findStockDisk();
    const config = { source: { disk }, recovery: { onApplicationExit: 'restart' } };
    await undisturbed(t, { tag: 'stocka', image, config, load: LOAD }, async stage => {
      const { tag, supervisor, traffic, lab } = stage;
      const all = traffic.clients.length;
      const { name, bootId } = guestOf(await supervisor.status(tag), 'primary');
      t.is((await ask(lab, 'hostname')).trim(), name, 'it has what its host says');
      t.is(
        await ask(lab, 'systemctl is-system-running; systemctl --failed --plain --no-legend'),
        'running\n',
      );

      for (const part of ['agent', 'heart'] as const) t.log(await killAgentPart(lab, supervisor, part));
      t.is(await ask(lab, 'systemctl is-active holdfast-agent'), 'active\n');
      t.regex(await ask(lab, 'holdfast-guest stop idle'), /^idle is stopped/);
      t.deepEqual((await supervisor.status(tag)).stoppedServices, ['service 3']);
      t.regex(await ask(lab, 'holdfast-guest start idle'), /^idle is /);
      const { recoveries, phase } = await supervisor.status(tag);
      t.deepEqual([recoveries, phase], [0, 'protected'], 'no outage');

      allAtWork(t, stage, 'before a worker is killed');
      const worker = await supervisor.drill(tag, 'app-worker');
      t.is(worker.cause, 'application-exit');
      t.is(worker.lost, 0);
      t.true(worker.kept >= 1 && worker.kept < all, `${worker.kept} of ${all} were replayed`);
      await supervisor.protectedAgain(tag);

      allAtWork(t, stage, 'before nginx is killed');
      const first = await supervisor.drill(tag, 'app-kill');
      t.deepEqual([first.cause, first.kept, first.lost], ['application-exit', all, 0]);
      t.log(`in place: done after ${(first.lastSpliceAt! - first.faultAt!).toFixed(0)} ms`);
      await supervisor.protectedAgain(tag);
      t.is(await bootIdOf(stage), bootId, 'it is the same guest');
      t.is(await ask(lab, 'systemctl is-active nginx'), 'active\n');

      // systemd would start this one again by itself, and never comes to it: a second death within the window is the backup's turn.
      allAtWork(t, stage, 'before the sink is killed');
      const killed = shell(lab, 'systemctl kill --signal=KILL upload-sink');
      const second = await waitFor('the third recovery', 60_000, async () =>
        (await supervisor.events()).filter(({ type }) => type === 'recovery.done').at(2),
      );
      t.like(second.data, { cause: 'application-exit', kept: all, lost: 0 });
      t.not(await bootIdOf(stage), bootId, 'the backup has taken over');
      await killed;
    });
  },
);

test.serial('a Debian with systemd: panic, and poweroff from inside', async t => {
  const { image, disk } = await findStockDisk();
  await undisturbed(t, { tag: 'stockb', image, config: { source: { disk } }, load: LOAD }, async stage => {
    const { tag, supervisor, traffic } = stage;
    allAtWork(t, stage, 'before the panic');
    const panic = await supervisor.drill(tag, 'guest-panic');
    t.like(panic, { cause: 'guest-panic', kept: traffic.clients.length, lost: 0 });
    await supervisor.protectedAgain(tag);

    // The next backup took its time to boot.
    const fresh = [traffic.curl([...image.files.keys()][0]!, 400_000), traffic.keepAlive(120, 4)];
    await waitFor('the new clients to be at work', 60_000, () =>
      fresh.every(client => client.progress().moved > 0) ? true : undefined,
    );
    const poweroff = await supervisor.drill(tag, 'poweroff');
    t.like(poweroff, { cause: 'guest-shutdown', lost: 0 });
    t.true(poweroff.kept >= fresh.length && fresh.every(client => !client.ended));
  });
});
