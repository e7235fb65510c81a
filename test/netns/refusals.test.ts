/**
 * Bad input to the real command and daemon, where no guest has to start for it: each is refused with a code, a message that
 * names what is wrong and a remedy; nothing is left behind, and nothing that was there is taken away.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { stringify } from 'yaml';
import { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { CONST } from '../../hypervisor-shim/datapath/layout.generated.js';
import type { Finding } from '../../supervisor/doctor/finding.js';
import { ServiceLocks } from '../../supervisor/service/service-lock.js';
import { Desk } from '../lib/desk.js';
import { findImage } from '../lib/image.js';
import { repositoryRoot } from '../lib/run.js';
import { serviceConfig } from '../lib/scenario.js';

test.serial('what is wrong before anything starts: no daemon, no state', async t => {
  await Desk.with(t, 'refusea', async desk => {
    const broken = desk.file('broken.yaml', 'name: [web\n');
    await desk.refused(['up', broken], 2, 'HF_CONFIG_SYNTAX', /broken\.yaml:\d+:\d+: /);
    const odd = desk.file('odd.yaml', { name: 'web', ports: ['x'] });
    await desk.refused(['up', odd], 2, 'HF_CONFIG_INVALID', /odd\.yaml:\d+:\d+: ports\[0\] is "x", expected/);
    await desk.refused(['up', '/nowhere.yaml'], 2, 'HF_CONFIG_UNREADABLE', /\/nowhere\.yaml/);
    const long = join(desk.lab.dir, 'x'.repeat(120));
    await desk.refused(['up', '--socket', long], 2, 'HF_SOCKET_PATH', /has \d+ bytes, expected at most 107/);
    await desk.refused(['up', '--metrics-listen', '9420'], 2, 'HF_METRICS_LISTEN', /"9420", expected an IP/);
    t.false(existsSync(desk.stateDir));

    const drop = (...names: string[]) => [
      'setpriv',
      '--inh-caps',
      names.join(),
      '--bounding-set',
      names.join(),
    ];
    const lame = { before: drop('-net_admin', '-bpf') };
    const lacking = /root lacks CAP_NET_ADMIN, CAP_BPF/;
    await desk.refused(['up'], 1, 'HF_NOT_PERMITTED', lacking, lame);
    const nobody = { before: ['setpriv', '--reuid', '65534', '--clear-groups', '--inh-caps', '-all'] };
    await desk.refused(['up'], 1, 'HF_NOT_PERMITTED', /permission/, nobody);
    await desk.refused(['status'], 1, 'HF_NOT_RUNNING', /no daemon answers/);
  });
});

test.serial('what a running daemon refuses before a guest is made; it goes on', async t => {
  const image = await findImage(text => t.log(text.trim()));
  await Desk.with(t, 'refuseb', async desk => {
    const { pid } = JSON.parse((await desk.run(['up'])).stdout) as { pid: number };
    const config = (changes: object) =>
      desk.file('web.yaml', serviceConfig('refuseb', image, { ...changes }));
    const empty = join(desk.lab.dir, 'empty');
    mkdirSync(empty);
    const cases: [changes: object, code: string, message: RegExp][] = [
      [{ source: { image: '/nowhere' } }, 'HF_IMAGE_MISSING', /source\.image: there is no \/nowhere/],
      [{ source: { image: empty } }, 'HF_IMAGE_INVALID', /empty is no appliance image: .*manifest\.json/],
      [
        { source: { image: desk.file('bad.yaml', 'packages: 7\n') } },
        'HF_IMAGE_BUILD',
        /bad\.yaml[\s\S]*packages/,
      ],
      [{ source: { disk: '/nowhere' } }, 'HF_SOURCE_DISK', /source\.disk: there is no \/nowhere/],
      [{ source: { domain: 'old' } }, 'HF_SOURCE_UNSUPPORTED', /source\.domain is old/],
      [
        { hypervisor: { uri: 'qemu+foo:///system' } },
        'HF_LIBVIRT_URI',
        /hypervisor\.uri is qemu\+foo:\/\/\/system/,
      ],
      [
        { hypervisor: { uri: 'qemu+unix:///system?socket=/nowhere' } },
        'HF_LIBVIRT_URI',
        /hypervisor\.uri is qemu\+unix:.*\/nowhere.*No such file/,
      ],
      [{ uplink: { bridge: 'br9' } }, 'HF_UPLINK_MISSING', /uplink\.bridge: there is no interface br9/],
      [{ uplink: { bridge: 'c0' } }, 'HF_UPLINK_NO_BRIDGE', /c0 is no Linux bridge/],
      [
        { address: `${desk.lab.clients[0]!.address}/24` },
        'HF_ADDRESS_BUSY',
        /^address: 10\.77\.0\.100 is answered by [0-9a-f:]{17} on br0/,
      ],
      [{ guest: { memoryMiB: 1_000_000 } }, 'HF_MEMORY', /guest\.memoryMiB 1000000/],
      [{ log: { sizeMiB: 65_536 }, guest: { memoryMiB: 600_000 } }, 'HF_MEMORY', /log\.sizeMiB 65536/],
    ];
    for (const [changes, code, message] of cases) {
      const status = /^HF_(IMAGE_MISSING$|SOURCE_DISK$|UPLINK_)/.test(code) ? 2 : 1;
      await desk.refused(['protect', config(changes)], status, code, message);
      t.deepEqual(await desk.status(), [], code);
      t.false(existsSync(join(desk.stateDir, 'services/refuseb.json')), code);
    }
    await desk.refused(
      ['drill', 'refuseb', '--fault', 'vm-kill'],
      1,
      'HF_SERVICE_UNKNOWN',
      /no service "refuseb"/,
    );
    await desk.refused(['down', 'refuseb'], 1, 'HF_SERVICE_UNKNOWN', /no service "refuseb"/);
    await desk.refused(['status', 'refuseb'], 1, 'HF_SERVICE_UNKNOWN', /no service "refuseb"/);
    const precious = desk.file('precious.json', '{}');
    for (const name of ['', '..', '.', '../../precious', 'a/b', 'Web'])
      for (const words of [
        ['down', name],
        ['connections', name],
        ['drill', name, '--fault', 'vm-kill'],
      ])
        await desk.refused(words, 1, 'HF_SERVICE_UNKNOWN', /there is no service ".*": expected a DNS label/);
    t.true(existsSync(precious));
    await desk.refused(['up', '--foreground'], 1, 'HF_ALREADY_RUNNING', /already running/);
    const again = JSON.parse((await desk.run(['up'])).stdout) as { pid: number; started: boolean };
    t.like(again, { pid, started: false });
    t.deepEqual(
      (await desk.lab.strays()).filter(line => line.startsWith('device')),
      [],
    );
  });
});

test.serial('an image that cannot be fetched: said what, and what to do', async t => {
  await Desk.with(t, 'refusec', async desk => {
    // The laboratory's network leads nowhere, and its cache is empty.
    const cache = join(desk.lab.dir, 'cache');
    await desk.run(['up'], { env: { HOLDFAST_CACHE: cache } });
    const source = { image: join(repositoryRoot(), 'images/appliance.yaml') };
    const config = {
      name: 'refusec',
      address: '10.77.0.10/24',
      ports: [80],
      source,
      uplink: { bridge: 'br0' },
    };
    const error = await desk.refused(
      ['protect', desk.file('web.yaml', config)],
      1,
      'HF_IMAGE_BUILD',
      /appliance\.yaml failed: [\s\S]*Failed to fetch http/,
    );
    t.regex(error.remedy, /network|apt-get update/);
    t.deepEqual(await desk.status(), []);
  });
});

/** A pinned data path as a supervisor of another version would have left it. */
function pinOf(name: string, version: number): string {
  const pinDirectory = `/sys/fs/bpf/holdfast/${name}`;
  const path = DataPath.create({
    pinDirectory,
    address: Uint8Array.of(10, 77, 0, 10),
    ports: [80],
    guestMac: Uint8Array.of(2, 0, 0, 0, 0, 1),
    compare: 'sampled',
    logMiB: 1,
    maxFlows: 16,
  });
  path.control.version = version;
  path.close();
  return pinDirectory;
}

test.serial('pins of another version, or of nobody, are kept until an operator says `down`', async t => {
  const image = await findImage(text => t.log(text.trim()));
  await Desk.with(t, 'refused', async desk => {
    const config = stringify(serviceConfig('refused', image));
    const source = desk.file('web.yaml', config);
    const pins = pinOf('refused', CONST.LAYOUT_VERSION + 1);
    t.teardown(() => DataPath.remove(pins));
    const services = join(desk.stateDir, 'services');
    mkdirSync(services, { recursive: true });
    const state = { name: 'refused', config, source, epoch: 3, generation: 2, guests: [] };
    writeFileSync(join(services, 'refused.json'), JSON.stringify(state));

    t.is((await desk.run(['up'])).code, 1, 'a service has failed');
    const [shown] = await desk.status();
    t.like(shown, { name: 'refused', phase: 'failed', epoch: 3 });
    t.regex(
      shown!.reason!,
      /layout version \d+, this supervisor knows \d+; remove it with `holdfast down refused`/,
    );
    await desk.refused(['protect', source], 1, 'HF_PINS_VERSION', /has layout version/);
    await desk.refused(
      ['drill', 'refused', '--fault', 'vm-kill'],
      1,
      'HF_PINS_VERSION',
      /has layout version/,
    );
    t.true(existsSync(join(pins, 'control')), 'the pins are still there');
    t.true((await desk.events()).some(({ type }) => type === 'service.orphaned'));
    t.is((await desk.run(['down', 'refused'])).code, 0);
    t.false(existsSync(pins));
    t.deepEqual(await desk.status(), []);

    pinOf('refused', CONST.LAYOUT_VERSION);
    await desk.refused(['protect', source], 1, 'HF_SERVICE_ORPHANED', /left behind .*state file is missing/);
    t.true(existsSync(join(pins, 'control')));
    t.is((await desk.run(['down', 'refused'])).code, 0);
    t.false(existsSync(pins));
  });
});

test.serial('what another daemon has alive is neither protected, taken over nor removed', async t => {
  const image = await findImage(text => t.log(text.trim()));
  await Desk.with(t, 'refusef', async desk => {
    const config = stringify(serviceConfig('refusef', image));
    const source = desk.file('web.yaml', config);
    const pins = pinOf('refusef', CONST.LAYOUT_VERSION);
    t.teardown(() => DataPath.remove(pins));
    const other = new ServiceLocks();
    other.take('refusef');
    t.teardown(() => other.releaseAll());
    const theirs = new RegExp(`refusef belongs to another daemon, pid ${process.pid}`);
    await desk.run(['up']);
    for (const words of [
      ['protect', source],
      ['down', 'refusef'],
    ])
      t.regex((await desk.refused(words, 1, 'HF_SERVICE_ELSEWHERE', theirs)).remedy, /Use that daemon/);
    // One that has a state file of the same name, too.
    await desk.run(['down']);
    const services = join(desk.stateDir, 'services');
    mkdirSync(services, { recursive: true });
    const state = { name: 'refusef', config, source, epoch: 3, generation: 2, guests: [] };
    writeFileSync(join(services, 'refusef.json'), JSON.stringify(state));
    t.is((await desk.run(['up'])).code, 1);
    const [shown] = await desk.status();
    t.is(shown!.phase, 'failed');
    t.regex(shown!.reason!, theirs);
    t.notRegex(shown!.reason!, /holdfast down/);
    for (const words of [['drill', 'refusef', '--fault', 'vm-kill'], ['down', 'refusef'], ['down']])
      await desk.refused(words, 1, 'HF_SERVICE_ELSEWHERE', theirs);
    t.true(existsSync(join(pins, 'control')), 'the pins are still there');
    t.true(existsSync(join(services, 'refusef.json')));
    const elsewhere = { env: { HOLDFAST_STATE: join(desk.lab.dir, 'elsewhere') } };
    t.notRegex((await desk.run(['doctor'], elsewhere)).stdout, /refusef belongs to no service/);
    // With its daemon the lock goes.
    other.releaseAll();
    t.regex((await desk.run(['doctor'], elsewhere)).stdout, /refusef belongs to no service/);
    t.is((await desk.run(['down', 'refusef'])).code, 0);
    t.false(existsSync(pins));
  });
});

test.serial('mounts of its own: refused before a data path is lost or taken for lost', async t => {
  await Desk.with(t, 'refuseg', async desk => {
    const hidden = { before: ['ip', 'netns', 'exec', desk.lab.host] };
    const error = await desk.refused(
      ['up'],
      1,
      'HF_BPFFS',
      /no BPF file system is on \/sys\/fs\/bpf/,
      hidden,
    );
    t.regex(error.remedy, /nsenter --net=/);
    const doctor = JSON.parse((await desk.run(['doctor'], hidden)).stdout) as { findings: Finding[] };
    const found = doctor.findings.find(({ check }) => check === 'bpffs');
    t.is(found?.level, 'failure', JSON.stringify(found));
    t.is((await desk.run(['up'])).code, 0);
  });
});

test.serial('damaged state: a garbled event log and state file hinder no start, and are told of', async t => {
  const image = await findImage(text => t.log(text.trim()));
  await Desk.with(t, 'refusee', async desk => {
    await desk.run(['up']);
    await desk.run(['down']);
    const log = join(desk.stateDir, 'events.ndjson');
    const before = readFileSync(log, 'utf8').trimEnd().split('\n');
    writeFileSync(log, `${before.slice(0, -1).join('\n')}\n${before.at(-1)!.slice(0, 20)}`);
    const services = join(desk.stateDir, 'services');
    mkdirSync(services, { recursive: true });
    writeFileSync(join(services, 'refusee.json'), '{"name": "refu');
    const config = stringify({ ...serviceConfig('refusee2', image), later: 'field' });
    const state = { name: 'refusee2', config, source: '/x.yaml', epoch: 1, generation: 1, guests: [] };
    writeFileSync(join(services, 'refusee2.json'), JSON.stringify(state));
    writeFileSync(join(desk.stateDir, 'accelerator.json'), 'garbage');

    t.is((await desk.run(['up'])).code, 1);
    const events = await desk.events();
    t.is(events.length, before.length - 1 + 2 + 2, 'the whole lines, the repair, the start, two orphans');
    t.true(events.some(({ type }) => type === 'events.repaired'));
    const shown = Object.fromEntries((await desk.status()).map(status => [status.name, status]));
    t.regex(shown.refusee!.reason!, /its state file is damaged; remove it with `holdfast down refusee`/);
    t.regex(shown.refusee2!.reason!, /later is not a known field[\s\S]*`holdfast down refusee2`/);
    t.is(shown.refusee2!.phase, 'failed');
    const source = desk.file('web.yaml', serviceConfig('refusee', image));
    await desk.refused(['protect', source], 1, 'HF_SERVICE_ORPHANED', /state file is damaged/);
    for (const name of ['refusee', 'refusee2']) t.is((await desk.run(['down', name])).code, 0);
    t.deepEqual(await desk.status(), []);
    rmSync(services, { recursive: true });
  });
});
