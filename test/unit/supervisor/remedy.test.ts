import test from 'ava';
import { chooseRemedy } from '../../../supervisor/recovery/remedy.js';

const policy = (onApplicationExit: 'failover' | 'restart') =>
  ({ onApplicationExit, restartWindowMs: 60_000 }) as Parameters<typeof chooseRemedy>[0];
const AT = 1_000_000;

test('each policy is followed where it can be', t => {
  t.deepEqual(chooseRemedy(policy('failover'), [], true, AT), { does: 'failover' });
  t.deepEqual(chooseRemedy(policy('restart'), [], true, AT), { does: 'restart', delayMs: 0 });
});

test('a service that dies again within the window fails over', t => {
  t.deepEqual(chooseRemedy(policy('restart'), [AT - 59_000], true, AT), { does: 'failover' });
  t.deepEqual(chooseRemedy(policy('restart'), [AT - 61_000], true, AT), { does: 'restart', delayMs: 0 });
});

test('without a backup it is started again, after longer and longer pauses', t => {
  for (const given of ['failover', 'restart'] as const) {
    const delays = [0, 1, 2, 3, 9].map(n => chooseRemedy(policy(given), Array(n).fill(AT - 1), false, AT));
    t.deepEqual(
      delays,
      [0, 1000, 2000, 4000, 30_000].map(delayMs => ({ does: 'restart', delayMs })),
    );
  }
});
