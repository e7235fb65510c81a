/** A service that is there and does nothing, in a guest that is well: only who asks the service itself can tell. */
import test from 'ava';
import { SHELL_APPLIANCE, shell } from '../lib/guest-shell.js';
import { BRIDGE } from '../lib/lab.js';
import { waitFor } from '../lib/run.js';
import { allAtWork, type StageOptions, undisturbed } from '../lib/stage.js';

const TAG = 'wedged';
/** The host's own way to the service. */
const HOST_ADDRESS = '10.77.0.1/24';
const PROBE = { http: '/small/1k', status: 200, intervalMs: 500, timeoutMs: 5000, failures: 2 };

const OPTIONS: StageOptions = {
  tag: TAG,
  appliance: SHELL_APPLIANCE,
  config: { detect: { probe: PROBE } },
  load: { downloads: 4, uploads: 1, loops: 4 },
};

test('a service whose processes are stopped is found by its probe; its connections go on in the backup', async t => {
  await undisturbed(t, OPTIONS, async stage => {
    const { lab, supervisor, traffic } = stage;
    await lab.exec(lab.host, ['ip', 'addr', 'add', HOST_ADDRESS, 'dev', BRIDGE]);
    const said = (type: string, timeoutMs: number) =>
      waitFor(type, timeoutMs, async () => (await supervisor.events()).find(event => event.type === type));
    await said('probe.trouble', 60_000); // there was no way
    await said('probe.answered', 60_000);
    allAtWork(t, stage, 'before the service is stopped');
    const { phase, recoveries } = await supervisor.status(TAG);
    t.deepEqual([phase, recoveries], ['protected', 0]);
    await shell(lab, 'busybox killall -STOP nginx');
    const done = await said('recovery.done', 120_000);
    t.log(done.message);
    // The connections of the probe itself are among them.
    const { cause, kept, lost } = done.data as { cause: string; kept: number; lost: number };
    t.deepEqual([cause, lost], ['service-wedged', 0]);
    t.true(kept >= traffic.clients.length);
    await supervisor.protectedAgain(TAG);
  });
});
