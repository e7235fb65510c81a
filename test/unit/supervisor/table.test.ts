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
