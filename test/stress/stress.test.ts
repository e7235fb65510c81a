/** The full length, for `make verify`; the report is test/reports/stress.json. */
import test from 'ava';
import { keepReport, stressed } from '../lib/stress.js';

test('ten minutes of CPU, memory and disk stress are no fault; hangs in it are', async t => {
  const report = await stressed(
    t,
    'tenmin',
    600,
    ['guest-spin', 'guest-hang'],
    ['link', 'route'],
    ['agent', 'heart'],
  );
  keepReport('stress', report);
  t.is(report.falseAlarms, 0);
});
