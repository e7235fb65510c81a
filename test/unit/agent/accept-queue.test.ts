/** Whether a service accepts connections, as the kernel's tables show it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import test from 'ava';
import { AcceptQueue } from '../../../guest-agent/accept-queue.js';
import { listeners, parseListeners, parseUnaccepted } from '../../../guest-agent/listeners.js';

const TABLE = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 113 1 0000000080761fe8 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 114 1 0000000080761fe8 100 0 0 10 0
   2: 0A00000A:0050 0B00000A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 0 1 00000000f5b2650e 20 4 0 10 -1
   3: 0A00000A:0050 0B00000A:9C41 08 00000000:00000001 00:00000000 00000000     0        0 0 1 00000000f5b2650e 20 4 0 10 -1
   4: 0A00000A:0050 0B00000A:9C42 01 00000000:00000000 00:00000000 00000000    33        0 117 1 00000000f5b2650e 20 4 0 10 -1
   5: 0A00000A:0050 0B00000A:9C43 04 00000000:00000000 00:00000000 00000000     0        0 0 1 00000000f5b2650e 20 4 0 10 -1
   6: 0A00000A:1F90 0B00000A:9C44 01 00000000:00000000 00:00000000 00000000     0        0 0 1 00000000f5b2650e 20 4 0 10 -1
`;

test("the kernel's table: who listens, and what nobody has accepted", t => {
  t.deepEqual(parseListeners(TABLE), [
    { port: 80, queued: 2 },
    { port: 8080, queued: 0 },
  ]);
  t.deepEqual(parseUnaccepted(TABLE, new Set([80])), [
    '0A00000A:0050 0B00000A:9C40',
    '0A00000A:0050 0B00000A:9C41',
  ]);
  t.deepEqual(parseUnaccepted('', new Set([80])), []);
});

/** Looks at a queue that holds these connections. */
function watched() {
  const state = { waiting: [] as string[], scans: 0 };
  const queue = new AcceptQueue([80], async () => {
    state.scans++;
    return new Set(state.waiting);
  });
  const look = (...waiting: string[]) => {
    state.waiting = waiting;
    return queue.look([
      { port: 80, queued: waiting.length },
      { port: 81, queued: 9 },
    ]);
  };
  return { state, queue, look };
}

test('a queue stands still while the first in it stays, however many come behind it', async t => {
  const { queue, look } = watched();
  t.true(await look('a', 'b'));
  t.false(await look('a', 'b'));
  t.false(await look('a', 'b', 'c'));
  t.is(queue.length, 3);
  t.true(await look('b', 'c', 'd'), 'of equal length, but one was accepted');
  t.false(await look('b', 'c', 'd', 'e'));
  t.true(await look('b'), 'shorter');
  t.false(await look('b'));
});

test('an empty queue stands for a service that accepts, and costs no look at the table', async t => {
  const { state, queue, look } = watched();
  t.true(await look());
  t.true(await look());
  t.deepEqual([queue.length, state.scans], [0, 0]);
  t.true(await look('a'));
  t.true(await look());
  t.true(await look('a'), 'what waits now came later, though its port is the same');
});

/** Listens, prints its port, and does nothing more for as long as it lives. */
const DEAF = `require('net').createServer().listen(0, '127.0.0.1', function () {
  require('fs').writeSync(1, this.address().port + '\\n');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
})`;

test('a server that accepts nothing, as this kernel tells of it', async t => {
  const server = spawn(process.execPath, ['-e', DEAF], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => void server.kill('SIGKILL'));
  const [printed] = await once(server.stdout, 'data');
  const port = Number(printed);
  const queue = new AcceptQueue([port]);
  t.true(await queue.look(listeners()));
  const clients = [];
  for (let n = 1; n <= 2; n++) {
    const client = connect(port, '127.0.0.1').on('error', () => {});
    await once(client, 'connect');
    clients.push(client);
    t.is(await queue.look(listeners()), n === 1, 'the first that waits is news');
    t.is(queue.length, n);
  }
  clients[1]!.end('closed by its client');
  t.false(await queue.look(listeners()));
  for (const client of clients) client.destroy();
});
