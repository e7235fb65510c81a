import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import test from 'ava';
import { EventLog } from '../../../supervisor/events/event-log.js';
import { parseListen } from '../../../supervisor/metrics/listener.js';
import { Metrics } from '../../../supervisor/metrics/metrics.js';
import { FakeSupervisor } from './fake-supervisor.js';
import { errorOf, MINIMAL, temporaryFolder } from './helpers.js';
import { laboratory, lines } from './laboratory.js';

/** Our own samples of an exposition, `name{labels}` to value; checks the lines' form on the way. */
function samplesOf(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  for (const line of text.trimEnd().split('\n')) {
    if (line === '' || /^# (HELP|TYPE) [a-z0-9_]+ /.test(line)) continue;
    const match = /^([a-zA-Z_][a-zA-Z0-9_]*(?:\{[^}]*\})?) ([0-9.e+-]+|Na[nN]|\+Inf)$/.exec(line);
    if (!match) throw new Error(`not a sample: ${line}`);
    if (match[1]!.startsWith('holdfast_')) samples.set(match[1]!, Number(match[2]));
  }
  return samples;
}

function harness() {
  const log = EventLog.open(temporaryFolder());
  const metrics = new Metrics('1.2.3', log);
  const supervisor = new FakeSupervisor(log);
  const render = async () => samplesOf(await metrics.render(supervisor.samples()));
  return { log, supervisor, render, metrics };
}

test('a service’s state is read at the scrape; a service that is gone has no series', async t => {
  const { log, supervisor, render } = harness();
  await supervisor.protect(MINIMAL, '/web.yaml');
  const shown = await render();
  const expected: [string, number][] = [
    ['holdfast_service_phase{service="web",phase="protected"}', 1],
    ['holdfast_service_phase{service="web",phase="failed"}', 0],
    ['holdfast_service_start_time_seconds{service="web"}', 1],
    ['holdfast_guests{service="web",role="primary",state="active"}', 1],
    ['holdfast_guest_heartbeat_age_seconds{service="web"}', 0.012],
    ['holdfast_connections{service="web",state="tracked"}', 2],
    ['holdfast_connections{service="web",state="held"}', 0],
    ['holdfast_log_segments{service="web",size="large",state="used"}', 15],
    ['holdfast_log_used_bytes{service="web"}', 10 * 2048 + 15 * 16_384],
    ['holdfast_log_size_bytes{service="web"}', 80 * 2048 + 20 * 16_384],
    ['holdfast_log_spill_bytes{service="web"}', 5000],
    ['holdfast_log_spill_size_bytes{service="web"}', 9000],
    ['holdfast_log_spill_full{service="web"}', 1],
    ['holdfast_log_spilled_bytes_total{service="web"}', 7000],
    ['holdfast_datapath_events_total{service="web",event="drop_parse"}', 4],
    ['holdfast_recoveries_total{service="web",cause="guest-hang"}', 3],
    ['holdfast_recoveries_total{service="web",cause="guest-panic"}', 0],
    ['holdfast_event_log_errors_total', 0],
    ['holdfast_event_log_events_total', 2],
  ];
  for (const [name, value] of expected) t.is(shown.get(name), value, name);
  t.true([...shown.keys()].some(name => /^holdfast_build_info\{version="1\.2\.3",layout="\d+"/.test(name)));
  // A counter read from the kernel is set, not added up, by each scrape.
  t.is((await render()).get('holdfast_datapath_events_total{service="web",event="opened"}'), 10);
  await supervisor.down('web');
  const rest = await render();
  t.deepEqual(
    [...rest.keys()].filter(name => name.includes('service="web"')),
    [],
  );
  await log.close();
  log.append('late', undefined, 'not stored');
  t.is((await render()).get('holdfast_event_log_errors_total'), 1);
});

test('verdicts and times are counted from the events; a reason is no label', async t => {
  const { log, render } = harness();
  log.append('recovery.started', 'web', '', { cause: 'guest-panic', detectedAt: 1000 });
  const verdict = { client: '192.0.2.1:1', port: 80, reason: 'any text', at: 1080 };
  log.append('connection.kept', 'web', '', { ...verdict, code: 'spliced' });
  log.append('connection.kept', 'web', '', { ...verdict, code: 'closed' });
  log.append('connection.lost', 'web', '', { ...verdict, code: 'diverged-content' });
  log.append('connection.lost', 'web', '', { ...verdict, code: 'from a later version' });
  log.append('recovery.done', 'web', '', { faultAt: 985, detectedAt: 1000, resumedAt: 1004 });
  // After the recovery there is no detection that a late splice could be measured from.
  log.append('connection.kept', 'web', '', { ...verdict, code: 'spliced', at: 99_000 });
  log.append('daemon.error', undefined, 'a defect');
  const shown = await render();
  const verdicts = [...shown].filter(([name]) => name.startsWith('holdfast_verdicts_total'));
  t.deepEqual(Object.fromEntries(verdicts), {
    'holdfast_verdicts_total{service="web",outcome="kept",code="spliced"}': 2,
    'holdfast_verdicts_total{service="web",outcome="kept",code="closed"}': 1,
    'holdfast_verdicts_total{service="web",outcome="lost",code="diverged-content"}': 1,
    'holdfast_verdicts_total{service="web",outcome="lost",code="other"}': 1,
  });
  t.is(shown.get('holdfast_splice_seconds_count{service="web"}'), 1);
  t.is(shown.get('holdfast_splice_seconds_sum{service="web"}'), 0.08);
  t.is(shown.get('holdfast_splice_seconds_bucket{le="0.05",service="web"}'), 0);
  t.is(shown.get('holdfast_splice_seconds_bucket{le="0.1",service="web"}'), 1);
  t.is(shown.get('holdfast_detection_seconds_sum{service="web"}'), 0.015);
  t.is(shown.get('holdfast_resume_seconds_sum{service="web"}'), 0.004);
  t.is(shown.get('holdfast_internal_errors_total'), 1);
  await log.close();
});

test('names follow the conventions: unit and _total suffixes, one HELP and TYPE each', async t => {
  const { log, metrics, supervisor } = harness();
  await supervisor.protect(MINIMAL, '/web.yaml');
  const text = await metrics.render(supervisor.samples());
  const types = [...text.matchAll(/^# TYPE (holdfast_\w+) (\w+)$/gm)].map(m => [m[1]!, m[2]!] as const);
  t.true(types.length > 15);
  t.is(new Set(types.map(([name]) => name)).size, types.length);
  for (const [name, type] of types) {
    t.is(name.endsWith('_total'), type === 'counter', name);
    if (type === 'histogram') t.regex(name, /_seconds$/);
    t.true(text.includes(`# HELP ${name} `), name);
  }
  await log.close();
});

/** Somebody's port that is free just now. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

test('the TCP listener serves /metrics only, and only if asked for', async t => {
  const { run, config } = laboratory(t);
  const port = await freePort();
  const listen = `127.0.0.1:${port}`;
  const up = await run('up', '--metrics-listen', listen, config);
  t.is(up.code, 0, up.stderr);
  const scrape = await fetch(`http://${listen}/metrics`);
  t.is(scrape.status, 200);
  t.regex(scrape.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/);
  t.is(samplesOf(await scrape.text()).get('holdfast_service_phase{service="web",phase="protected"}'), 1);
  t.is((await fetch(`http://${listen}/services`)).status, 404);
  t.is((await fetch(`http://${listen}/shutdown`, { method: 'POST' })).status, 404);
  t.is((await fetch(`http://${listen}/metrics`, { method: 'POST' })).status, 405);
  t.regex((await run('metrics')).stdout, /^holdfast_connections\{service="web",state="tracked"\} 2$/m);
  // The option comes too late for a daemon that runs with another, or none.
  t.is((await run('up', '--metrics-listen', listen)).code, 0);
  const other = await run('up', '--metrics-listen', '127.0.0.1:1', '--json');
  t.is(other.code, 1);
  t.is(JSON.parse(lines(other.stderr).at(-1)!).code, 'HF_DAEMON_OPTION');
  await run('down');
  const refused = connect(port, '127.0.0.1');
  t.is(((await once(refused, 'error')) as [NodeJS.ErrnoException])[0].code, 'ECONNREFUSED');
});

test('a port that is taken ends the start with a reason, and leaves no daemon', async t => {
  const { run } = laboratory(t);
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.teardown(() => taken.close());
  const listen = `127.0.0.1:${(taken.address() as { port: number }).port}`;
  const up = await run('up', '--metrics-listen', listen, '--json');
  t.is(up.code, 1);
  const error = JSON.parse(lines(up.stderr).at(-1)!);
  t.is(error.code, 'HF_METRICS_IN_USE');
  t.regex(error.message, /EADDRINUSE/);
  t.is((await run('status')).code, 1);
});

test('what is no address and port is refused', async t => {
  t.deepEqual(parseListen('[::1]:9420'), { host: '::1', port: 9420 });
  for (const text of ['9420', 'localhost:9420', '127.0.0.1:0', '127.0.0.1:70000', '::1:9420', '']) {
    t.is((await errorOf(() => parseListen(text))).code, 'HF_METRICS_LISTEN', text);
  }
});
