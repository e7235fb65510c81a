import test from 'ava';
import { formatEvent, formatStatus } from '../../../supervisor/cli/format.js';
import { table } from '../../../supervisor/cli/table.js';
import { sampleService } from './fake-supervisor.js';

test('columns are as wide as their widest cell, numbers stand right', t => {
  const rows = [
    { name: 'a', n: 5 },
    { name: 'longer', n: undefined },
  ];
  t.is(
    table(rows, [
      { title: 'NAME', cell: row => row.name },
      { title: 'COUNT', right: true, cell: row => row.n },
    ]),
    'NAME    COUNT\na           5\nlonger      -',
  );
});

test('a service that is not protected says why', t => {
  const service = sampleService('web', '192.0.2.10/24', [80]);
  const text = formatStatus([{ ...service, phase: 'unprotected', reason: 'no backup' }]);
  t.regex(text, /^web: no backup$/m);
});

test('a message cannot break its line or command the terminal', t => {
  const event = { seq: 1, at: 0, type: 'a', service: undefined, message: 'x\n\u001b[2Jy', data: {} };
  t.true(formatEvent(event).endsWith('  #1  -  a  x [2Jy'));
});

test('the past of a service is told in a line', t => {
  const service = sampleService('web', '192.0.2.10/24', [80]);
  const minutesAgo = (n: number) => Date.now() - n * 60_000 - 500;
  const text = formatStatus([
    {
      ...service,
      startedAt: minutesAgo(190),
      lastFault: { cause: 'guest-panic', detail: 'web-a: \u001b[2Jpanicked', at: minutesAgo(5) },
      lastRecoveryAt: minutesAgo(4),
      recoveriesByCause: { 'guest-panic': 2, 'guest-hang': 1 },
    },
  ]);
  const words = [
    'web: protected first 3 h ago; last fault 5 min ago: guest-panic (web-a:  [2Jpanicked)',
    'last recovery ended 4 min ago; recoveries: 2 guest-panic, 1 guest-hang',
  ];
  t.true(text.split('\n').includes(words.join('; ')), text);
});
