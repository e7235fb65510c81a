import { readdirSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { EventLog } from '../../../supervisor/events/event-log.js';
import { makeRoom } from '../../../supervisor/incidents/room.js';
import { IncidentStore } from '../../../supervisor/incidents/store.js';
import { waitFor } from '../../lib/run.js';
import { errorOf, temporaryFolder } from './helpers.js';
import { laboratory } from './laboratory.js';

type Told = [type: string, data?: Record<string, unknown>, service?: string];

function storeOf(...told: Told[]) {
  const dir = temporaryFolder();
  const log = EventLog.open(dir);
  const store = new IncidentStore(dir, log);
  const tell = (...events: Told[]) => {
    for (const [type, data = {}, service = 'web'] of events) log.append(type, service, `about ${type}`, data);
  };
  tell(...told);
  return { dir, log, store, tell };
}

const fault = (guest: string, detectedAt = 1000): Told => [
  'fault.detected',
  { guest, cause: 'guest-panic', detail: `${guest}: why`, detectedAt, fencedAt: detectedAt + 1 },
];
const started = (to: string, epoch = 2): Told => ['recovery.started', { to, epoch }];
const verdict = (outcome: 'kept' | 'lost', flow: number): Told => [
  `connection.${outcome}`,
  {
    ...{ flow, client: `192.0.2.9:${flow}`, port: 80, inputBytes: 1, outputBytes: 2, at: 1050 },
    ...(outcome === 'kept'
      ? { code: 'spliced', reason: 'spliced' }
      : { code: 'deadline', reason: 'too late' }),
  },
];
const done: Told = ['recovery.done', { resumedAt: 1005, firstSpliceAt: 1050, lastSpliceAt: 1060, epoch: 2 }];
const isProtected: Told = ['service.protected'];

test('a fault, its recovery and what was kept of it', async t => {
  const { store, dir } = storeOf(
    ['service.starting'],
    fault('web-a'),
    ['guest.panicked', { guest: 'web-a' }],
    ['guest.panicked', { guest: 'web-x' }],
    started('web-b'),
    verdict('kept', 1),
    verdict('lost', 2),
    ['connection.lost', verdict('lost', 3)[1]!, 'mail'],
    done,
    isProtected,
    isProtected,
  );
  const [incident, ...more] = await store.list('web');
  t.deepEqual(more, []);
  t.like(incident, { id: 2, cause: 'guest-panic', guest: 'web-a', successor: 'web-b', detail: 'web-a: why' });
  t.like(incident, { outcome: 'recovered', kept: 1, lost: 1, epoch: 2 });
  t.like(incident!.timeline, { detectedAt: 1000, fencedAt: 1001, resumedAt: 1005, lastSpliceAt: 1060 });
  t.true(incident!.timeline.protectedAt! >= incident!.timeline.recoveredAt!);
  t.deepEqual(
    incident!.evidence.map(({ type }) => type),
    ['guest.panicked'],
  );
  t.false('verdicts' in incident!);
  const { verdicts } = await store.detail('web', 2);
  t.deepEqual(
    verdicts.map(({ client, outcome, spliceMs }) => [client, outcome, spliceMs]),
    [
      ['192.0.2.9:1', 'kept', 50],
      ['192.0.2.9:2', 'lost', undefined],
    ],
  );
  t.is((await errorOf(() => store.detail('web', 3))).code, 'HF_INCIDENT_UNKNOWN');
  t.deepEqual(await store.list('none'), []);
  store.close();
  t.deepEqual(readdirSync(dir).sort(), ['events.ndjson']);
});

test('a second fault in the midst: both are told, the report is the last one’s', async t => {
  const { store } = storeOf(
    ...[fault('web-a'), started('web-b'), verdict('kept', 1), verdict('kept', 2)],
    ...[fault('web-b', 2000), started('web-c', 3), verdict('lost', 1), done, isProtected],
  );
  const [first, second] = await store.list();
  t.like(first, { outcome: 'superseded', supersededBy: second!.id });
  t.like(second, { outcome: 'recovered', kept: 1, lost: 1, successor: 'web-c' });
  store.close();
});

test('a successor that finds the same fault again tells of one; the end of a service ends what is open', async t => {
  const { store } = storeOf(fault('web-a'), ['daemon.started'], fault('web-a', 1500), started('web-b'), done);
  t.is((await store.list()).length, 1);
  const { store: other, tell } = storeOf(fault('web-a'), ['service.down']);
  t.is((await other.list())[0]!.outcome, 'abandoned');
  tell(['service.starting'], verdict('kept', 9), isProtected, fault('web-b'), [
    'guest.gone',
    { guest: 'web-a' },
  ]);
  t.like(
    (await other.list())[0],
    { evidence: [], kept: 0 },
    'the next service of that name has a web-a, too',
  );
  store.close();
  other.close();
});

test('what the event log forgets is in a file, damaged ones are passed over, files that are gone are not named', async t => {
  const { dir, log, store, tell } = storeOf(fault('web-a'), started('web-b'), verdict('kept', 1), done);
  const consoleFile = join(dir, 'web-a-1.console');
  writeFileSync(consoleFile, '');
  tell(
    ['guest.console', { guest: 'web-a', file: consoleFile }],
    ['guest.dumped', { guest: 'web-a', file: '/none' }],
  );
  tell(isProtected);
  const file = join(dir, 'incidents/web/1.json');
  await waitFor('the file', 10_000, () => (exists(join(dir, 'incidents/web')) ? file : undefined));
  const told = await store.detail('web', 1);
  t.is(told.consoleFile, consoleFile);
  t.is(told.dumpFile, undefined);
  await log.close();
  truncateSync(join(dir, 'events.ndjson'), 0);
  writeFileSync(join(dir, 'incidents/web/7.json'), '{');
  const empty = EventLog.open(dir);
  const later = new IncidentStore(dir, empty);
  t.deepEqual(await later.detail('web', 1), JSON.parse(JSON.stringify(told)));
  t.is((await later.list()).length, 1);
  t.deepEqual(await later.list('mail'), []);
  // The log's beginning is lost in the midst of a recovery: the file has all of it.
  empty.append('daemon.started', undefined, '');
  empty.append('recovery.started', 'web', '', { detectedAt: 1000, from: 'web-a' });
  t.deepEqual(
    (await later.list()).map(({ id }) => id),
    [1],
  );
  later.close();
  store.close();
});

function exists(directory: string): boolean {
  try {
    return readdirSync(directory).some(name => name.endsWith('.json'));
  } catch {
    return false;
  }
}

test('the oldest files make room, by number of a kind and by bytes of all', t => {
  const dir = temporaryFolder();
  const add = (name: string, bytes: number, age: number) => {
    writeFileSync(join(dir, name), Buffer.alloc(bytes, 1));
    const at = Date.now() / 1000 - age;
    utimesSync(join(dir, name), at, at);
  };
  for (let i = 1; i <= 4; i++) {
    add(`${i}.json`, 100, 100 - i);
    add(`web-${i}.core`, 10_000, 100 - i);
  }
  makeRoom(dir, { keep: 3, bytes: 100_000 }, { kind: 'core', bytes: 10_000 });
  t.deepEqual(readdirSync(dir).sort(), ['2.json', '3.json', '4.json', 'web-3.core', 'web-4.core']);
  makeRoom(dir, { keep: 3, bytes: 25_000 }, { kind: 'core', bytes: 10_000 });
  t.deepEqual(readdirSync(dir).sort(), ['2.json', '3.json', '4.json', 'web-4.core']);
  makeRoom(dir, { keep: 3, bytes: 10_000 }, { kind: 'core', bytes: 10_000 });
  t.deepEqual(readdirSync(dir), []);
});

test('holdfast incidents: the list, and all of one', async t => {
  const { run, config } = laboratory(t);
  await run('up', config);
  const list = await run('incidents');
  t.regex(
    list.stdout,
    /^ID +SERVICE +DETECTED .*\n17 +web +.* guest-panic +web-a +recovered +2 +1 +web-a: kernel/,
  );
  t.is((await run('incidents', 'other')).stdout, 'no incidents\n');
  const one = await run('incidents', 'web', '17');
  t.is(one.code, 0, one.stderr);
  t.regex(
    one.stdout,
    /^incident 17 of web, .*: guest-panic, recovered\nweb-a failed: .*\nweb-b took over, in epoch 2$/m,
  );
  t.regex(one.stdout, /^console: .*web-a-1\.console$/m);
  t.regex(one.stdout, /^30000\.0 {2}protected again$/m);
  t.regex(one.stdout, /guest\.panicked {2}web-a: {2}\[2Jkernel panic/, 'without terminal sequences');
  t.regex(one.stdout, /connections: 2 kept, 1 lost/);
  t.is(JSON.parse((await run('incidents', 'web', '17', '--json')).stdout).verdicts.length, 3);
  t.like(await run('incidents', 'web', '18', '--json'), { code: 1 });
  t.is((await run('incidents', 'web', 'x')).code, 2);
  t.is((await run('incidents', '../x')).code, 1);
});
