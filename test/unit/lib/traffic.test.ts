import test from 'ava';
import { Capture } from '../../lib/capture.js';
import { Client } from '../../lib/client.js';
import { longestSilence, summarize } from '../../lib/gaps.js';
import { BRIDGE, Lab } from '../../lib/lab.js';
import { boundReceiveBuffers } from '../../lib/load.js';
import { sleep } from '../../lib/run.js';
import { makeUploadBody, type ServiceTarget, Traffic } from '../../lib/traffic.js';
import { startPlainService } from './_service.js';

let lab: Lab;
let service: ServiceTarget;

test.before(async () => {
  lab = await Lab.create('unittraffic');
  service = await startPlainService(lab);
});
test.after.always(() => lab?.dispose());

test.serial('mixed clients are byte-exact, each on one connection, and the capture agrees', async t => {
  const client = lab.clients[0]!;
  const capture = await Capture.start(lab, client);
  const traffic = new Traffic(lab, client, [service], 60_000);
  const upload = makeUploadBody(lab, 3 << 20);
  // So slow that all are in flight at once, however long a busy machine takes to start them.
  traffic.curl('/files/00.bin', 512 << 10);
  traffic.curl('/files/01.bin', 512 << 10);
  traffic.wget('/files/00.bin', 512 << 10);
  traffic.upload(upload, 512 << 10);
  traffic.keepAlive(20, 4);
  const progress = await traffic.waitInFlight(64 << 10, 256 << 10, 20_000);
  t.is(progress.length, 5);
  const results = await traffic.results();
  await capture.stop();
  for (const result of results) t.true(result.ok, `${result.label}: ${result.error}`);
  t.is(results[4]!.requests, 20);
  for (const result of results) t.is(result.localPorts.length, 1, result.label);

  const trace = capture.trace([80, 8080]);
  const summary = summarize(trace, 5);
  t.is(summary.connections, 5);
  t.is(summary.resets, 0);
  t.is(summary.reconnects, 0);
  for (const result of results) {
    const connection = trace.connections.find(c => c.clientPort === result.localPorts[0]);
    t.truthy(connection, result.label);
    t.is(connection!.syns, 1);
    const [down, up] = [connection!.toClient.bytes, connection!.toServer.bytes];
    if (result.kind === 'upload') t.true(up > upload.bytes && up < upload.bytes + 1000, `${up} up`);
    else
      t.true(
        down > result.bytes && down < result.bytes + 400 * result.requests,
        `${result.label}: ${JSON.stringify(connection)} ${JSON.stringify(result)}`,
      );
  }
});

test.serial('a changed byte, a reset and an early close are noticed', async t => {
  const client = lab.clients[0]!;
  const capture = await Capture.start(lab, client);
  const traffic = new Traffic(lab, client, [service], 20_000);
  const corrupt = traffic.curl('/corrupt/files/00.bin', 1e9);
  const corruptWget = traffic.wget('/corrupt/files/00.bin', 1e9);
  const reset = traffic.curl('/reset/files/00.bin', 1e9);
  const resetWget = traffic.wget('/reset/files/00.bin', 1e9);
  const short = traffic.curl('/short/files/00.bin', 1e9);
  for (const client of [corrupt, corruptWget]) {
    const result = await client.result;
    t.false(result.ok);
    t.true(result.corrupt);
    t.is(result.exitCode, 0);
  }
  for (const client of [reset, resetWget, short]) {
    const result = await client.result;
    t.false(result.ok, result.label);
    t.false(result.corrupt);
    t.false(result.sha256Ok);
    t.not(result.exitCode, 0);
  }
  await capture.stop();
  const trace = capture.trace([80]);
  t.true(trace.resets.some(reset => reset.from.endsWith(':80')));
  t.true(summarize(trace, 5).resets >= 2);
});

test.serial('a wrong answer to an upload is noticed, and a client that hangs is ended', async t => {
  const upload = makeUploadBody(lab, 1 << 20);
  const traffic = new Traffic(lab, lab.clients[0]!, [service], 20_000);
  const wrong = await traffic.upload({ ...upload, sha256: '0'.repeat(64) }, 1e9).result;
  t.true(wrong.corrupt);
  const silent = { ...service, httpUrl: `${service.httpUrl}:9` }; // accepts and says nothing
  const hung = await new Traffic(lab, lab.clients[0]!, [silent], 1000).curl('/files/00.bin', 1e9).result;
  t.false(hung.ok);
  t.regex(hung.error!, /not finished after 1000 ms/);
});

test.serial('a second connection of a keep-alive loop is noticed', async t => {
  const [lone] = lab.clients;
  const { argv, ...plan } = new Traffic(lab, lone!, [service], 20_000).keepAlive(4, 10).plan;
  // told to, the server closes after each reply, and curl has to connect again
  const closing = new Client({ ...plan, argv: [...argv, '-H', 'Connection: close'] }, lab, lone!);
  const result = await closing.result;
  t.false(result.ok);
  t.regex(result.error!, /4 connections instead of 1/);
});

test.serial('a stalled server shows as the longest gap', async t => {
  const client = lab.clients[0]!;
  // or all of the file would be in the client's kernel before the stall
  await boundReceiveBuffers(lab, client);
  const capture = await Capture.start(lab, client);
  const traffic = new Traffic(lab, client, [service], 20_000);
  traffic.curl('/files/00.bin', 2 << 20);
  traffic.keepAlive(20, 10);
  await traffic.waitInFlight(256 << 10, 1 << 20, 10_000);
  const from = Date.now();
  // off the bridge, not down: without carrier the client's own packets would not be captured either
  await lab.exec(lab.host, ['ip', 'link', 'set', 'c0', 'nomaster']);
  await sleep(400);
  await lab.exec(lab.host, ['ip', 'link', 'set', 'c0', 'master', BRIDGE]);
  for (const result of await traffic.results()) t.true(result.ok, result.error);
  await capture.stop();
  for (const connection of capture.trace([80]).connections) {
    const gap = longestSilence(connection, from, from + 5000);
    t.true(gap >= 250 && gap < 3000, `gap of ${gap} ms`);
  }
});
