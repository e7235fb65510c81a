/** `holdfast doctor` in a laboratory: what it says of this host, and of configurations that do not fit it. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { stringify } from 'yaml';
import type { Finding } from '../../supervisor/doctor/finding.js';
import { Lab, SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { cleanEnv, repositoryRoot } from '../lib/run.js';

const TAG = 'doctor';

async function withLab(t: ExecutionContext, act: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = await Lab.create(TAG);
  try {
    await act(lab);
    t.deepEqual(await lab.strays(), []);
  } finally {
    await lab.dispose();
  }
  t.deepEqual(await leftovers(TAG), []);
}

/** A valid configuration in the laboratory, `changes` merged over it. */
function configuration(lab: Lab, changes: object = {}): string {
  const image = join(lab.dir, 'appliance.yaml');
  writeFileSync(image, 'name: x\n');
  const file = join(lab.dir, 'web.yaml');
  const config = { name: 'web', address: `${SERVICE_ADDRESS}/24`, ports: [80], source: { image } };
  writeFileSync(file, stringify({ ...config, uplink: { bridge: 'br0' }, ...changes }));
  return file;
}

async function diagnose(lab: Lab, words: string[], before: string[] = []) {
  const argv = [...before, join(repositoryRoot(), 'supervisor/holdfast'), 'doctor', '--json', ...words];
  const stateDir = join(lab.dir, 'state');
  const { code, stdout, stderr } = await lab.exec(lab.host, argv, {
    // Nothing of this test needs a trial boot.
    env: cleanEnv({ HOLDFAST_STATE: stateDir, HOLDFAST_SOCKET: join(lab.dir, 's'), HOLDFAST_ACCEL: 'tcg' }),
    allowFailure: true,
    timeoutMs: 60_000,
  });
  if (stdout === '') throw new Error(stderr);
  const { ok, findings } = JSON.parse(stdout) as { ok: boolean; findings: Finding[] };
  const of = (check: string) => findings.filter(finding => finding.check === check);
  return { code, ok, findings, of, failures: findings.filter(({ level }) => level === 'failure') };
}

test.serial('this host has what is needed; a configuration that fits it too', async t => {
  await withLab(t, async lab => {
    const plain = await diagnose(lab, []);
    t.deepEqual(plain.failures, []);
    t.deepEqual([plain.code, plain.ok], [0, true]);
    const checks = new Set(plain.findings.map(({ check }) => check));
    for (const check of ['privileges', 'kernel', 'data path', 'replay', 'tap devices', 'libvirt', 'memory'])
      t.true(checks.has(check), check);
    const address6 = `${SERVICE_ADDRESS6}/64`;
    const storage = { mode: 'shared', directory: lab.dir, mount: '/srv/data' };
    const fits = await diagnose(lab, ['--config', configuration(lab, { address6, storage })]);
    t.deepEqual(fits.failures, []);
    t.like(fits.of('address')[0], { level: 'ok', found: `nobody on br0 has ${SERVICE_ADDRESS}` });
    t.like(fits.of('address')[1], { level: 'ok', found: `nobody on br0 has ${SERVICE_ADDRESS6}` });
    t.like(fits.of('storage')[0], { level: 'ok', found: `${lab.dir} can be shared, at /srv/data` });
    t.like(fits.of('uplink')[0], { level: 'ok', found: 'br0 is a bridge with c0' });
    // All that is not well says what to do.
    t.deepEqual(
      [...plain.findings, ...fits.findings].filter(({ level, remedy }) => level !== 'ok' && !remedy),
      [],
    );
  });
});

test.serial('each thing that does not fit is a failure that names field, value and remedy', async t => {
  await withLab(t, async lab => {
    const { address: client, address6: client6 } = lab.clients[0]!;
    await lab.exec(lab.host, ['ip', 'addr', 'add', '10.99.0.1/24', 'dev', 'br0']);
    // Each run tells of all that is wrong: what does not hide something else is tried at once.
    const cases: [changes: object, findings: Record<string, RegExp>][] = [
      [
        {
          address: `${client}/24`,
          management: { subnet: '10.99.0.0/16' },
          guest: { memoryMiB: 1_000_000 },
          source: { image: '/nowhere' },
          hypervisor: { uri: 'qemu+foo:///system' },
        },
        {
          address: /^address: 10\.77\.0\.100 is answered by [0-9a-f:]{17} on br0$/,
          management: /^management\.subnet: 10\.99\.0\.0\/16 overlaps 10\.99\.0\.1\/24 on br0$/,
          memory: /primary, backup and a log of 256 MiB take 2000656 MiB$/,
          image: /^source\.image: there is no \/nowhere$/,
          libvirt: /^hypervisor\.uri is qemu\+foo:\/\/\/system, which cannot/,
        },
      ],
      [
        { address: '10.99.0.1/24', source: { domain: 'old' } },
        { address: /10\.99\.0\.1 is this host's own, on br0$/, image: /^source\.domain is old/ },
      ],
      [
        {
          address6: `${client6}/64`,
          storage: { mode: 'handed-over', disk: '/nowhere', mount: '/srv/data' },
        },
        {
          address: /^address6: fd[0-9a-f:]+ is answered by [0-9a-f:]{17} on br0$/,
          storage: /^storage\.disk: there is no \/nowhere$/,
        },
      ],
      [{ uplink: { bridge: 'br9' } }, { uplink: /^uplink\.bridge: there is no interface br9/ }],
      [{ uplink: { bridge: 'c0' } }, { uplink: /c0 is no Linux bridge but veth/ }],
      [{ ports: [0] }, { configuration: /web\.yaml:\d+:\d+: ports\[0\] is 0/ }],
    ];
    for (const [changes, expected] of cases) {
      const { code, failures } = await diagnose(lab, ['--config', configuration(lab, changes)]);
      t.is(code, 1);
      t.deepEqual(
        failures.map(({ check }) => check).sort(),
        Object.keys(expected).sort(),
        JSON.stringify(failures),
      );
      for (const { check, found, remedy } of failures) {
        t.regex(found, expected[check]!);
        t.true(remedy!.length > 10);
      }
    }
  });
});

test.serial('without capabilities it says which are lacking', async t => {
  await withLab(t, async lab => {
    const drop = ['setpriv', '--bounding-set', '-net_admin,-bpf', '--inh-caps', '-net_admin,-bpf'];
    const { code, failures } = await diagnose(lab, [], drop);
    t.is(code, 1);
    t.is(failures.find(({ check }) => check === 'privileges')?.found, 'root lacks CAP_NET_ADMIN, CAP_BPF');
    t.true(failures.some(({ check }) => check === 'tap devices'));
  });
});

test.serial('stale state is told of, and left as it is', async t => {
  await withLab(t, async lab => {
    const services = join(lab.dir, 'state/services');
    mkdirSync(services, { recursive: true });
    writeFileSync(join(services, 'torn.json'), '{"name": "to');
    const state = { name: 'gone', config: 'x', source: 'y', epoch: 1, generation: 2, guests: [] };
    writeFileSync(join(services, 'gone.json'), JSON.stringify(state));
    const page = `/dev/shm/holdfast-${TAG}-a`;
    writeFileSync(page, '');
    const { failures, of } = await diagnose(lab, []);
    t.deepEqual(failures.map(({ found }) => found).sort(), [
      'gone: its data path is not pinned',
      'torn: its state file is damaged',
    ]);
    t.true(of('leftovers').some(({ level, found }) => level === 'warning' && found.includes(page)));
    t.true((await leftovers(TAG)).includes(`file ${page}`), 'it is not the doctor who removes things');
    await lab.exec(lab.host, ['rm', page]);
  });
});
