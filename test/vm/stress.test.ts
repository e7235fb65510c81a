/** A short form of test/stress, which `make verify` runs: no false alarm under stress, and a real fault is still found. */
import test from 'ava';
import { stressed } from '../lib/stress.js';

test('half a minute of CPU, memory and disk stress is no fault; a hang in it is', async t => {
  const report = await stressed(t, 'stress', 30, ['guest-spin'], ['link']);
  t.is(report.falseAlarms, 0);
});
