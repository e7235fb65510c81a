/** Five failovers in a row under the same connections, with re-protection between. */
import test from 'ava';
import { allAtWork, LONG_LOAD, undisturbed } from '../lib/stage.js';

const FAILOVERS = 5;
const FAULTS = ['guest-panic', 'vm-kill'] as const;

// The drills are five in a row, too; these are of the kinds that have nothing in common.
const long = process.env.HOLDFAST_LONG ? test : test.skip;

long('five failovers in a row under continuous load', async t => {
  await undisturbed(t, { tag: 'five', load: LONG_LOAD }, async stage => {
    const { tag, supervisor, traffic } = stage;
    const bootIds = new Set<string | undefined>();
    for (let n = 0; n < FAILOVERS; n++) {
      allAtWork(t, stage, `before fault ${n + 1}`);
      const report = await supervisor.drill(tag, FAULTS[n % FAULTS.length]!);
      t.deepEqual(
        report.verdicts.filter(v => v.outcome !== 'kept'),
        [],
      );
      t.is(report.kept, traffic.clients.length);
      const status = await supervisor.protectedAgain(tag);
      bootIds.add(status.guests.find(g => g.role === 'primary')?.bootId);
    }
    t.is(bootIds.size, FAILOVERS, 'each failover went to a machine of its own');
    t.is((await supervisor.status(tag)).recoveries, FAILOVERS);
  });
});
