/** Every drill beside panic and vm-kill (continuous.test.ts), one after the other under the same connections. */
import test from 'ava';
import type { DrillFault, RecoveryReport } from '../../supervisor/api/types.js';
import { allAtWork, LONG_LOAD, undisturbed } from '../lib/stage.js';

const CAUSES: [DrillFault, RecoveryReport['cause']][] = [
  ['guest-hang', 'guest-hang'],
  ['guest-spin', 'guest-hang'],
  ['link-cut', 'link-cut'],
  ['reboot', 'guest-shutdown'],
  ['poweroff', 'guest-shutdown'],
];

test('a hang of two kinds, a cut link, a reboot and a poweroff from inside, under the same connections', async t => {
  await undisturbed(t, { tag: 'drills', load: LONG_LOAD }, async stage => {
    const { tag, supervisor, traffic } = stage;
    for (const [fault, cause] of CAUSES) {
      allAtWork(t, stage, `before ${fault}`);
      const report = await supervisor.drill(tag, fault);
      t.is(report.cause, cause, fault);
      t.deepEqual(
        report.verdicts.filter(v => v.outcome !== 'kept'),
        [],
        fault,
      );
      t.is(report.kept, traffic.clients.length, fault);
      t.log(`${fault}: detected after ${(report.detectedAt - report.faultAt!).toFixed(0)} ms`);
      await supervisor.protectedAgain(tag);
    }
    t.is((await supervisor.status(tag)).recoveries, CAUSES.length);
  });
});
