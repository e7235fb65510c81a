import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { HoldfastError } from '../../../hypervisor-shim/errors.js';
import { ControlClient } from '../../../supervisor/api/client.js';
import { exitOf, statusOf } from '../../../supervisor/api/http-errors.js';
import { controlSocket } from '../../../supervisor/api/paths.js';
import { ControlSocket } from '../../../supervisor/api/server.js';
import { EventLog } from '../../../supervisor/events/event-log.js';
import { Metrics } from '../../../supervisor/metrics/metrics.js';
import { FakeSupervisor, sampleReport } from './fake-supervisor.js';
import { errorOf, MINIMAL, temporaryFolder } from './helpers.js';

/** A control socket over a fake supervisor, and a client of it. */
async function serve(t: ExecutionContext) {
  const dir = temporaryFolder();
  const path = join(dir, 'run', 'control.sock');
  const log = EventLog.open(dir);
  const operations = new FakeSupervisor(log);
  const socket = await ControlSocket.claim(path);
  const logged: string[] = [];
  const state = { ended: false };
  const metrics = new Metrics('0', log);
  await socket.listen({
    operations,
    logger: pino({}, { write: line => void logged.push(line) }),
    daemon: () => ({ pid: 1, version: '0', stateDir: dir, startedAt: 0, lastEvent: log.lastSeq }),
    metrics: () => metrics.render(operations.samples()),
    onShutdown: () => {
      state.ended = true;
    },
  });
  t.teardown(async () => {
    await socket.close();
    await log.close();
    rmSync(dir, { recursive: true });
  });
  return { path, socket, log, operations, logged, state, client: new ControlClient(path) };
}

test('every operation goes through the socket unchanged', async t => {
  const { client, operations, state } = await serve(t);
  const service = await client.protect(MINIMAL, '/etc/web.yaml');
  t.is(service.name, 'web');
  t.deepEqual(JSON.parse(JSON.stringify(await operations.status())), await client.status());
  t.is((await client.connections()).length, 1);
  t.is((await client.connections('other')).length, 0);
  t.deepEqual(await client.drill('web', 'guest-panic'), sampleReport('web', 0));
  t.is((await client.daemon()).lastEvent, 3);
  await client.down('web');
  t.deepEqual(await client.status(), []);
  t.false(state.ended);
  await client.shutdown();
  t.true(state.ended);
});

test('errors keep code, message and remedy', async t => {
  const { client } = await serve(t);
  await client.protect(MINIMAL, '/etc/web.yaml');
  const twice = await errorOf(() => client.protect(MINIMAL, '/etc/web.yaml'));
  t.is(twice.code, 'HF_SERVICE_EXISTS');
  t.is(twice.remedy, 'Stop it first.');
  const config = await errorOf(() => client.protect('name: X', '/etc/web.yaml'));
  t.is(config.code, 'HF_CONFIG_INVALID');
  t.regex(
    (await errorOf(() => client.drill('a/b ?', 'vm-kill'))).message,
    /path\.name: expected a DNS label/,
  );
  const fault = await errorOf(() => client.drill('web', 'flood' as 'vm-kill'));
  t.is(fault.code, 'HF_REQUEST_INVALID');
  t.regex(fault.message, /body\.fault/);
});

test('an unforeseen error is answered and logged, and the server goes on', async t => {
  const { client, logged } = await serve(t);
  t.is((await errorOf(() => client.connections('broken'))).code, 'HF_INTERNAL');
  t.true(logged.some(line => line.includes('a defect') && line.includes('fake-supervisor')));
  t.deepEqual(await client.status(), []);
});

/** Status and body of a raw request, for what the client would never send. */
async function raw(socketPath: string, method: string, path: string, body?: string) {
  const outgoing = request({ socketPath, method, path, headers: { 'content-type': 'application/json' } });
  outgoing.end(body);
  const [response] = await once(outgoing, 'response');
  let text = '';
  for await (const chunk of response) {
    text += chunk;
  }
  return { status: response.statusCode as number, code: JSON.parse(text).code as string };
}

test('what an error means: HTTP status, and exit status of the command', t => {
  for (const [status, exit, codes] of [
    [
      400,
      2,
      'CONFIG_INVALID UPLINK_MISSING UPLINK_NO_BRIDGE IMAGE_MISSING STORAGE_DISK SOCKET_PATH STATE_DIR LOG_LEVEL',
    ],
    [409, 2, 'CONFIG_CONFLICT'],
    [400, 1, 'REQUEST_INVALID'],
    [404, 1, 'SERVICE_UNKNOWN'],
    [409, 1, 'SERVICE_EXISTS SERVICE_BUSY SERVICE_ORPHANED SERVICE_ELSEWHERE STOPPING DRILL_NO_BACKUP'],
    [503, 1, 'SHUTTING_DOWN'],
    [500, 1, 'INTERNAL GUEST_BOOT'],
  ] as const)
    for (const code of codes.split(' ')) {
      const error = new HoldfastError(`HF_${code}`, '', '');
      t.deepEqual([statusOf(error), exitOf(error)], [status, exit], code);
    }
});

test('malformed requests get 4xx with a code', async t => {
  const { path } = await serve(t);
  const invalid = { status: 400, code: 'HF_REQUEST_INVALID' };
  t.deepEqual(await raw(path, 'POST', '/services', '{'), invalid);
  t.deepEqual(await raw(path, 'POST', '/services', '{"config": 1}'), invalid);
  t.deepEqual(await raw(path, 'POST', '/down', '{"everything": true}'), invalid);
  for (const service of ['', '..', '../../x', '/etc', 'Web', 'a'.repeat(13)]) {
    t.deepEqual(await raw(path, 'POST', '/down', JSON.stringify({ service })), invalid, service);
    t.deepEqual(await raw(path, 'GET', `/connections?service=${encodeURIComponent(service)}`), invalid);
  }
  t.deepEqual(await raw(path, 'POST', '/services/..%2F..%2Fx/drill', '{"fault":"vm-kill"}'), invalid);
  t.deepEqual(await raw(path, 'GET', '/events?since=-1'), invalid);
  t.deepEqual(await raw(path, 'GET', '/connections?serivce=web'), invalid);
  t.deepEqual(await raw(path, 'GET', '/events?sinse=1'), invalid);
  t.deepEqual(await raw(path, 'GET', '/services?x=1'), invalid);
  t.deepEqual(await raw(path, 'POST', '/services/%ff/drill', '{"fault":"vm-kill"}'), invalid);
  t.deepEqual(await raw(path, 'GET', '/%ff'), invalid);
  t.deepEqual(await raw(path, 'POST', '/down'), invalid);
  t.deepEqual(await raw(path, 'GET', '/nothing'), { status: 404, code: 'HF_REQUEST_INVALID' });
  t.deepEqual(await raw(path, 'POST', '/services/no/drill', '{"fault":"vm-kill"}'), {
    status: 404,
    code: 'HF_SERVICE_UNKNOWN',
  });
});

test('events stream live, stop with the signal, and end with the server', async t => {
  const { client, log, socket } = await serve(t);
  log.append('a', undefined, 'past');
  const stop = new AbortController();
  const stream = client.events(1, true, stop.signal);
  t.is((await stream.next()).value!.message, 'past');
  const next = stream.next();
  log.append('a', 'web', 'present');
  t.is((await next).value!.message, 'present');
  stop.abort();
  t.true((await stream.next()).done);

  const past = [];
  for await (const event of client.events(2, false, new AbortController().signal)) {
    past.push(event.seq);
  }
  t.deepEqual(past, [2]);

  const last = client.events(2, true, new AbortController().signal);
  await last.next();
  const end = last.next().then(
    result => (result.done ? 'ended' : 'more'),
    error => error.code as string,
  );
  await socket.close();
  t.true(['ended', 'HF_CONNECTION_LOST'].includes(await end));
});

test('an error within an event stream arrives as that error', async t => {
  const { client, operations } = await serve(t);
  operations.events = async function* () {
    yield* [];
    throw new TypeError('a defect');
  };
  const error = await errorOf(() => client.events(0, true, new AbortController().signal).next());
  t.is(error.code, 'HF_INTERNAL');
});

test('only root can open the socket', async t => {
  const { path } = await serve(t);
  t.is(statSync(path).mode & 0o777, 0o600);
});

test('a live daemon keeps its socket; a dead one is replaced; none is HF_NOT_RUNNING', async t => {
  const { path, client, socket } = await serve(t);
  t.is((await errorOf(() => ControlSocket.claim(path))).code, 'HF_ALREADY_RUNNING');
  t.deepEqual(await client.status(), []);
  await socket.close();
  const gone = await errorOf(() => client.status());
  t.is(gone.code, 'HF_NOT_RUNNING');
  t.regex(gone.remedy, /holdfast up/);

  // A process that dies with its socket leaves the file behind.
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`;
  spawnSync(process.execPath, ['-e', script]);
  t.true(statSync(path).isSocket());
  t.is((await errorOf(() => client.status())).code, 'HF_NOT_RUNNING');
  const second = await ControlSocket.claim(path);
  await second.close();
});

test('a foreign listener on the path is left alone', async t => {
  const path = join(temporaryFolder(), 'control.sock');
  const foreign = createServer().listen(path);
  await once(foreign, 'listening');
  t.is((await errorOf(() => ControlSocket.claim(path))).code, 'HF_ALREADY_RUNNING');
  t.true(statSync(path).isSocket());
  foreign.close();
});

test('while the daemon ends, new requests are told so', async t => {
  const { client, socket } = await serve(t);
  socket.refuse();
  t.is((await errorOf(() => client.status())).code, 'HF_SHUTTING_DOWN');
});

test('a path the kernel would cut off is refused', async t => {
  t.is((await errorOf(() => controlSocket(`/tmp/${'x'.repeat(120)}`))).code, 'HF_SOCKET_PATH');
});
