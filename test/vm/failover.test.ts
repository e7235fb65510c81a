/** Real guests, real clients, real faults. What each scenario demands stands in test/lib/assess.ts. */
import test from 'ava';
import { runScenario, type ScenarioOptions } from '../lib/scenario.js';
import { TS_AHEAD, TS_BEHIND } from '../lib/ts-shift.js';

const holds = test.macro<[ScenarioOptions]>(async (t, options) => {
  const result = await runScenario({ log: line => t.log(line), ...options });
  t.deepEqual(result.failures, []);
  for (const round of result.rounds) {
    t.is(round.kept, options.connections!);
    t.is(round.resets + round.reconnects + round.lost + round.corrupt, 0);
  }
});

/** In `make verify`: others of this suite show most of it. */
const long = process.env.HOLDFAST_LONG ? test.serial : test.serial.skip;

test.serial('the primary’s kernel panics under 50 connections, half of them over IPv6', holds, {
  tag: 'panic',
  families: 'both',
  fault: 'guest-panic',
  connections: 50,
});

test.serial('the primary’s QEMU is killed; clients’ clocks are far ahead of the host’s', holds, {
  tag: 'vmkill',
  fault: 'vm-kill',
  connections: 20,
  clientTsShift: TS_AHEAD,
});

long('two panics in a row; clients’ clocks are far behind the host’s', holds, {
  tag: 'behind',
  fault: 'guest-panic',
  connections: 10,
  rounds: 2,
  clientTsShift: TS_BEHIND,
});
