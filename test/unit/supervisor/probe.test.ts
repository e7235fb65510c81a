import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo, createServer as createTcpServer } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { ask, type ProbeCharge, type ProbeConfig, Prober } from '../../../supervisor/recovery/probe.js';
import { sleep, waitFor } from '../../lib/run.js';

const HOST = '127.0.0.1';

async function listening(server: Server | ReturnType<typeof createTcpServer>): Promise<number> {
  server.listen(0, HOST);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const probeOf = (port: number, changes: Partial<ProbeConfig> = {}): ProbeConfig => ({
  port,
  intervalMs: 5,
  timeoutMs: 10_000, // nobody who answers on a busy machine is late
  failures: 3,
  ...changes,
});

test('a probe is answered in time and as expected, or says how not', async t => {
  const server = createServer((request, response) => {
    if (request.url === '/slow') return;
    response.statusCode = request.url === '/broken' ? 500 : 204;
    response.end();
  });
  const port = await listening(server);
  await t.notThrowsAsync(ask(probeOf(port), HOST));
  await t.notThrowsAsync(ask(probeOf(port, { http: '/' }), HOST));
  await t.notThrowsAsync(ask(probeOf(port, { http: '/', status: 204 }), HOST));
  await t.throwsAsync(ask(probeOf(port, { http: '/', status: 200 }), HOST), {
    message: 'it answered 204, expected 200',
  });
  await t.throwsAsync(ask(probeOf(port, { http: '/broken' }), HOST), {
    message: 'it answered 500, expected less than 500',
  });
  await t.throwsAsync(ask(probeOf(port, { http: '/slow', timeoutMs: 200 }), HOST), {
    message: 'no answer within 200 ms',
  });
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
  await t.throwsAsync(ask(probeOf(port), HOST), { code: 'ECONNREFUSED' });
  await t.throwsAsync(ask(probeOf(port, { http: '/' }), HOST), { code: 'ECONNREFUSED' });
});

/** A service whose guest may be made to answer or not, and what its prober says of it. */
async function watched(t: ExecutionContext, answers: (n: number) => boolean) {
  const stop = new AbortController();
  const server = { answers };
  let asked = 0;
  const http = createServer((_, response) => {
    response.statusCode = server.answers(asked++) ? 200 : 503;
    response.end();
  });
  const probe = probeOf(await listening(http), { http: '/' });
  const said: string[] = [];
  const failed: string[] = [];
  const charge = {
    primary: { name: 'web-0', state: 'active' },
    fault: undefined as ProbeCharge['fault'],
    crashed: undefined as ProbeCharge['crashed'],
    replaying: false,
    stoppedServices: [] as string[],
    stopped: stop.signal,
    config: { address: `${HOST}/8`, detect: { probe } },
    primaryFailed(cause: string, detail: string) {
      failed.push(`${cause}: ${detail}`);
      charge.fault = {} as ProbeCharge['fault'];
    },
    say: (type: string, message: string) => void said.push(`${type}: ${message}`),
  };
  const prober = new Prober(charge);
  const running = prober.run();
  t.teardown(async () => {
    stop.abort();
    await running;
    http.closeAllConnections();
    http.close();
  });
  const rounds = (count: number) => {
    const goal = asked + count;
    return waitFor(`${count} probes`, 20_000, () => asked >= goal || undefined);
  };
  return { charge, server, said, failed, rounds };
}

test('a service that answered and answers no more is wedged, after so many failures in a row', async t => {
  const w = await watched(t, n => n % 3 === 0);
  await w.rounds(30);
  t.deepEqual(w.failed, [], 'never three in a row');
  w.server.answers = () => false;
  await waitFor('the verdict', 20_000, () => w.failed.length > 0 || undefined);
  t.deepEqual(w.failed, [
    'service-wedged: web-0: GET / has failed 3 times, at last: it answered 503, expected less than 500',
  ]);
  t.deepEqual(w.said, ['probe.answered: detect.probe is answered by web-0, and counts from now on']);
});

test('a probe that never succeeded with a guest proves nothing, and is told of once', async t => {
  const w = await watched(t, () => false);
  await w.rounds(6);
  t.deepEqual(w.failed, []);
  t.is(w.said.length, 1);
  t.regex(w.said[0]!, /^probe\.trouble: detect\.probe proves nothing: it answered 503.*web-0$/);
});

test('that a guest answered says nothing of the one that took over', async t => {
  const w = await watched(t, () => w.charge.primary.name === 'web-0');
  await w.rounds(3);
  w.charge.primary = { name: 'web-1', state: 'active' };
  await w.rounds(6);
  t.deepEqual(w.failed, []);
  t.regex(w.said[1]!, /^probe\.trouble: .*web-1$/);
});

test('what is asked while the service is started again in its guest proves nothing', async t => {
  const w = await watched(t, () => !w.charge.crashed);
  await w.rounds(2);
  w.charge.crashed = {} as ProbeCharge['crashed'];
  await sleep(100);
  t.deepEqual(w.failed, []);
});

test('what is asked during a replay proves nothing', async t => {
  const w = await watched(t, () => !w.charge.replaying);
  await w.rounds(2);
  w.charge.replaying = true;
  await sleep(100); // twenty times as long as between two probes
  t.deepEqual(w.failed, []);
});

test('a service that was stopped on purpose may answer nothing; started again, it begins anew', async t => {
  const w = await watched(t, () => w.charge.stoppedServices.length === 0);
  await w.rounds(2);
  w.charge.stoppedServices = ['nginx'];
  await sleep(100);
  w.charge.stoppedServices = [];
  await w.rounds(3);
  t.deepEqual(w.failed, []);
  w.server.answers = () => false;
  await waitFor('the verdict', 20_000, () => w.failed.length > 0 || undefined);
});
