import { rmSync, writeFileSync } from 'node:fs';
import test from 'ava';
import type { GuestStatus } from '../../../supervisor/api/types.js';
import { assess, type Evidence } from '../../lib/assess.js';
import type { ClientResult } from '../../lib/client.js';
import { traceConnections } from '../../lib/tcp-trace.js';
import { pcapOf, type Segment } from './_packets.js';

const T = 1_700_000_000_000;
const SERIAL = `/tmp/holdfast-unit-serial-${process.pid}.log`;

test.before(() => writeFileSync(SERIAL, 'boot\nKernel panic - not syncing: drill\n'));
test.after.always(() => rmSync(SERIAL, { force: true }));

/** One download, 100 ms into which the primary panicked; the backup went on after 150 ms. */
function evidence(extra: Segment[] = []): Evidence {
  const segment = (atMs: number, toServer: boolean, flags: string, seq: number, length = 0): Segment => {
    return { atMs: T + atMs, toServer, flags, seq, length };
  };
  const guest = (name: string, role: GuestStatus['role'], bootId: string): GuestStatus => {
    return {
      name,
      role,
      state: 'active',
      bootId,
      vcpuMs: 700,
      vcpuMsAtSuspend: 700,
      serialLog: SERIAL,
      managementAddress: '192.168.77.2/24',
      pid: 1,
    };
  };
  const client: ClientResult = {
    kind: 'curl',
    label: 'curl /files/00.bin',
    ok: true,
    bytes: 2000,
    corrupt: false,
    sha256Ok: true,
    requests: 1,
    localPorts: [40000],
    exitCode: 0,
    error: undefined,
    startedMs: T,
    endedMs: T + 260,
  };
  const segments = [
    segment(0, true, 'S', 0),
    segment(1, false, 'SA', 0),
    segment(2, true, 'A', 1, 100),
    segment(90, false, 'A', 1, 1000),
    segment(250, false, 'A', 1001, 1000),
    segment(260, true, 'FA', 101),
    ...extra,
  ];
  return {
    fault: 'guest-panic',
    clients: [client],
    trace: traceConnections(pcapOf(segments), [80]),
    clientAddresses: ['10.77.0.100', 'fd77::100'],
    inFlight: 1,
    report: {
      service: 'demo',
      cause: 'guest-panic',
      epoch: 2,
      faultAt: T + 100,
      detectedAt: T + 110.5,
      fencedAt: T + 111,
      resumedAt: T + 115,
      firstSpliceAt: T + 240,
      lastSpliceAt: T + 245,
      kept: 1,
      lost: 0,
      verdicts: [
        {
          client: '10.77.0.100:40000',
          port: 80,
          outcome: 'kept',
          code: 'spliced',
          reason: 'spliced',
          inputBytes: 100,
          outputBytes: 1000,
          spliceMs: 100,
        },
      ],
    },
    primaryBefore: guest('a', 'primary', 'boot-a'),
    backupBefore: guest('b', 'backup', 'boot-b'),
    primaryAfter: guest('b', 'primary', 'boot-b'),
  };
}

test('a recovery nobody noticed has no failures, and its numbers', t => {
  const numbers = assess(evidence());
  t.deepEqual(numbers.failures, []);
  t.like(numbers, { kept: 1, lost: 0, resets: 0, reconnects: 0, servedByBackup: 1 });
  t.like(numbers, { detectMs: 10.5, spliceMs: 145, longestGapMs: 150 });
});

const failing: [string, RegExp, (e: Evidence) => void][] = [
  [
    'a client that failed',
    /exit status 18/,
    e => Object.assign(e.clients[0]!, { ok: false, error: 'exit status 18' }),
  ],
  ['a lost verdict', /1 lost/, e => Object.assign(e.report, { lost: 1 })],
  ['a missing verdict', /no verdict/, e => Object.assign(e.report, { verdicts: [] })],
  ['the old machine still primary', /old boot id/, e => Object.assign(e, { primaryAfter: e.primaryBefore })],
  ['a third machine', /not the backup/, e => Object.assign(e.primaryAfter, { bootId: 'boot-c' })],
  ['a backup that ran', /ran for 40 ms/, e => Object.assign(e.backupBefore, { vcpuMs: 740 })],
  [
    'a backup never suspended',
    /ran for NaN/,
    e => Object.assign(e.backupBefore, { vcpuMsAtSuspend: undefined }),
  ],
  ['no panic', /Kernel panic/, e => Object.assign(e.primaryBefore, { serialLog: '/dev/null' })],
  [
    'no byte after the takeover',
    /served by the backup/,
    e => Object.assign(e.report, { resumedAt: T + 255 }),
  ],
];
for (const [what, expected, spoil] of failing)
  test(`noticed: ${what}`, t => {
    const spoilt = evidence();
    spoil(spoilt);
    t.regex(assess(spoilt).failures.join('\n'), expected);
  });

test('noticed: a reset, and a second connection', t => {
  const reset = { atMs: T + 270, toServer: false, flags: 'R', seq: 2001 };
  t.regex(assess(evidence([reset])).failures.join('\n'), /RST from 10.77.0.10:80 .*170 ms after the fault/);
  const second = { atMs: T + 120, toServer: true, flags: 'S', seq: 9, clientPort: 40001 };
  t.regex(assess(evidence([second])).failures.join('\n'), /1 reconnects/);
});
