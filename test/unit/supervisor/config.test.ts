import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { parseServiceConfig, readConfigFile } from '../../../supervisor/config/config.js';
import { serviceSchema } from '../../../supervisor/config/schema.js';
import { errorOf, MINIMAL, temporaryFolder } from './helpers.js';

const parse = (text: string) => parseServiceConfig(text, '/etc/holdfast/web.yaml');

test('the minimal configuration gets every default', t => {
  t.deepEqual(parse(MINIMAL), {
    name: 'web',
    address: '192.0.2.10/24',
    ports: [80],
    protocols: {},
    source: { kind: 'image', image: '/images/web' },
    uplink: { bridge: 'br0' },
    management: { subnet: '192.168.77.0/24' },
    guest: { memoryMiB: 384, vcpus: 1 },
    hypervisor: {},
    detect: { heartbeatMs: 50, misses: 3 },
    incidents: { keep: 50, sizeMiB: 4096 },
    recovery: {
      ...{ compare: 'sampled', masks: ['http-date'], former: 'keep', replayDeadlineMs: 30_000 },
      ...{ onApplicationExit: 'failover', restartWindowMs: 60_000 },
    },
    log: { sizeMiB: 256, onFull: 'backpressure' },
    connections: { max: 65_536, onFull: 'wait' },
    storage: { mode: 'none' },
  });
});

test('the example states the defaults it says it states', t => {
  const example = parse(readFileSync('supervisor/config/example.yaml', 'utf8'));
  t.deepEqual(example, {
    ...parse(MINIMAL),
    gateway: '192.0.2.1',
    ports: [80, 8080],
    protocols: {},
    source: { kind: 'image', image: '/images/appliance.yaml' },
  });
});

test('a probe asks the first port unless another is given, and only one of them', async t => {
  const probe = (yaml: string) => parse(`${MINIMAL}\ndetect: { probe: ${yaml} }\n`).detect.probe;
  t.deepEqual(probe('{}'), { port: 80, intervalMs: 5000, timeoutMs: 5000, failures: 3 });
  t.like(probe('{ http: /healthz, status: 200 }'), { port: 80, http: '/healthz', status: 200 });
  const refused: [yaml: string, message: RegExp][] = [
    ['{ port: 81 }', /detect\.probe\.port is 81, expected one of ports, 80/],
    ['{ status: 200 }', /detect\.probe\.status is 200, expected nothing without http/],
    ['{ http: healthz }', /detect\.probe\.http is "healthz", expected a path/],
  ];
  for (const [yaml, message] of refused) t.regex((await errorOf(() => probe(yaml))).message, message);
});

test('a relative image or disk starts at the folder of the file; a domain is the third kind of source', t => {
  t.deepEqual(parse(MINIMAL.replace('image: /images/web', 'disk: web.qcow2')).source, {
    kind: 'disk',
    disk: '/etc/holdfast/web.qcow2',
  });
  t.like(parse(MINIMAL.replace('/images/web', 'images/web')), {
    source: { image: '/etc/holdfast/images/web' },
  });
  t.deepEqual(parse(MINIMAL.replace('image: /images/web', 'domain: old-web')).source, {
    kind: 'domain',
    domain: 'old-web',
  });
});

test('a log is spilled only if it is asked for; where and how much has defaults', t => {
  const withLog = (log: string) => parse(MINIMAL.replace('ports', `log: ${log}\nports`)).log;
  t.is(withLog('{ sizeMiB: 64 }').spill, undefined);
  t.deepEqual(withLog('{ spill: {} }').spill, { sizeMiB: 4096 });
  t.deepEqual(withLog('{ spill: { directory: /spill, sizeMiB: 9 } }').spill, {
    directory: '/spill',
    sizeMiB: 9,
  });
});

test('storage is a word or a mapping; a disk that moves changes what becomes of the failed machine', t => {
  const withStorage = (storage: string) => parse(MINIMAL.replace('ports', `storage: ${storage}\nports`));
  t.deepEqual(withStorage('none').storage, { mode: 'none' });
  t.deepEqual(withStorage('{ mode: none }').storage, { mode: 'none' });
  const shared = withStorage('{ mode: shared, directory: /data, mount: /srv/data }');
  t.deepEqual(shared.storage, { mode: 'shared', directory: '/data', mount: '/srv/data' });
  t.is(shared.recovery.former, 'keep');
  const disk = withStorage('{ mode: handed-over, disk: /data.raw, mount: /srv/data }');
  t.deepEqual(disk.storage, { mode: 'handed-over', disk: '/data.raw', mount: '/srv/data' });
  t.is(disk.recovery.former, 'destroy');
});

/** Replacement in the minimal text, and the complaint it must produce. */
const mistakes: [name: string, from: string, to: string, complaint: RegExp][] = [
  [
    'port out of range',
    '[80]',
    '[80, 70000]',
    /web\.yaml:3:13: ports\[1\] is 70000, expected a whole number from 1 to 65535$/,
  ],
  ['no ports', '[80]', '[]', /:3:8: ports is \[\], expected a list of 1 to 16 ports$/],
  [
    'seventeen ports',
    '[80]',
    `[${Array.from({ length: 17 }, (_, i) => i + 1)}]`,
    /ports is .*expected a list of 1 to 16/,
  ],
  ['repeated port', '[80]', '[80, 80]', /ports is \[80,80\], expected a list without repeated ports$/],
  ['port as text', '[80]', '["80"]', /ports\[0\] is "80", expected a whole number/],
  [
    'long name',
    'name: web',
    'name: a-very-long-name',
    /:1:7: name is "a-very-long-name", expected a DNS label/,
  ],
  ['upper-case name', 'name: web', 'name: Web', /name is "Web"/],
  ['missing name', 'name: web\n', '', /:1:1: name is missing, expected a DNS label/],
  ['empty name', 'name: web', 'name:', /name is empty/],
  ['network address', '192.0.2.10/24', '192.0.2.0/24', /address is "192.0.2.0\/24", expected an IPv4 host/],
  ['no prefix', '192.0.2.10/24', '192.0.2.10', /address is "192.0.2.10"/],
  ['octal look-alike', '192.0.2.10/24', '192.0.2.010/24', /address is "192.0.2.010\/24"/],
  [
    'foreign gateway',
    'ports',
    'gateway: 10.0.0.1\nports',
    /gateway is "10.0.0.1", expected another host .* 192.0.2.0\/24$/,
  ],
  ['own gateway', 'ports', 'gateway: 192.0.2.10\nports', /gateway is "192.0.2.10"/],
  [
    'two sources',
    '{ image: /images/web }',
    '{ image: /i, domain: d }',
    /source is .*expected exactly one of image, disk and domain$/,
  ],
  ['no source', '{ image: /images/web }', '{}', /source is \{\}, expected exactly one/],
  [
    'unknown field',
    'ports:',
    'prots: 1\nports:',
    /:3:8: prots is not a known field, expected one of the fields name, address/,
  ],
  [
    'unknown inner field',
    'br0 }',
    'br0, vlan: 3 }',
    /uplink\.vlan is not a known field, expected one of the fields bridge$/,
  ],
  [
    'overlap',
    'ports',
    'management: { subnet: 192.0.2.0/24 }\nports',
    /management.subnet is .*does not overlap/,
  ],
  [
    'storage without its fields',
    'ports',
    'storage: shared\nports',
    /storage is "shared", expected none, or a mapping/,
  ],
  [
    'unknown storage',
    'ports',
    'storage: { mode: mirrored }\nports',
    /storage(\.mode)? is .*mirrored.*, expected none, or a mapping with mode handed-over/,
  ],
  [
    'disk without mount',
    'ports',
    'storage: { mode: handed-over, disk: /d.raw }\nports',
    /storage.mount is missing, expected an absolute path .* such as \/srv\/data$/,
  ],
  [
    'relative disk',
    'ports',
    'storage: { mode: handed-over, disk: d.raw, mount: /srv/data }\nports',
    /storage.disk is "d.raw", expected an absolute path on this host$/,
  ],
  [
    'mount that climbs',
    'ports',
    'storage: { mode: shared, directory: /d, mount: /srv/../etc }\nports',
    /storage.mount is "\/srv\/..\/etc"/,
  ],
  [
    'mount that is two words',
    'ports',
    'storage: { mode: shared, directory: /d, mount: "/srv/a b" }\nports',
    /storage.mount is "\/srv\/a b"/,
  ],
  [
    'field of another mode',
    'ports',
    'storage: { mode: shared, directory: /d, mount: /srv, disk: /e }\nports',
    /storage.disk is not a known field/,
  ],
  [
    'former kept with its disk',
    'ports',
    'storage: { mode: handed-over, disk: /d.raw, mount: /srv }\nrecovery: { former: keep }\nports',
    /recovery.former is "keep", expected destroy or dump/,
  ],
  [
    'former aside with its disk',
    'ports',
    'storage: { mode: handed-over, disk: /d.raw, mount: /srv }\nrecovery: { former: aside }\nports',
    /recovery.former is "aside", expected destroy or dump/,
  ],
  [
    'former aside with a shared directory',
    'ports',
    'storage: { mode: shared, directory: /d, mount: /srv }\nrecovery: { former: aside }\nports',
    /recovery.former is "aside", expected keep, dump or destroy/,
  ],
  [
    'no room for a dump',
    'ports',
    'recovery: { former: dump }\nincidents: { sizeMiB: 400 }\nports',
    /incidents.sizeMiB is 400, expected at least 448/,
  ],
  [
    'policy of a full log',
    'ports',
    'log: { onFull: spill }\nports',
    /log.onFull is "spill", expected one of backpressure, unprotected$/,
  ],
  [
    'spill without room',
    'ports',
    'log: { spill: { sizeMiB: 0 } }\nports',
    /log.spill.sizeMiB is 0, expected a whole number from 1 to 16777216$/,
  ],
  [
    'spill to a relative place',
    'ports',
    'log: { spill: { directory: spill } }\nports',
    /log.spill.directory is "spill", expected an absolute path on this host$/,
  ],
  [
    'zero misses',
    'ports',
    'detect: { misses: 0 }\nports',
    /detect.misses is 0, expected a whole number from 1 to 100$/,
  ],
  ['fraction', 'ports', 'guest: { vcpus: 1.5 }\nports', /guest.vcpus is 1.5/],
  [
    'list for mapping',
    'ports',
    'log: [1]\nports',
    /log is \[1\], expected a mapping with the fields sizeMiB, onFull, perConnectionMiB, spill$/,
  ],
  [
    'wrong word',
    'ports',
    'recovery: { former: burn }\nports',
    /former is "burn", expected one of keep, aside, dump, destroy$/,
  ],
];

for (const [name, from, to, complaint] of mistakes) {
  test(`refused: ${name}`, async t => {
    const error = await errorOf(() => parse(MINIMAL.replace(from, to)));
    t.is(error.code, 'HF_CONFIG_INVALID');
    t.regex(error.message, complaint);
    t.true(error.remedy.length > 0);
  });
}

test('all mistakes are named at once, in the order of the file', async t => {
  const error = await errorOf(() => parse(MINIMAL.replace('[80]', '[0]').replace('name: web', 'name: W')));
  t.deepEqual(
    error.message.split('\n').map(line => line.split(' ')[1]),
    ['name', 'ports[0]'],
  );
  t.regex(error.remedy, /2 fields/);
});

test('one mistake is its own remedy', async t => {
  const error = await errorOf(() => parse(MINIMAL.replace('[80]', '[0]')));
  t.is(error.remedy, 'Set ports[0] to a whole number from 1 to 65535.');
});

test('what is no YAML is refused with line and column', async t => {
  const broken: [string, RegExp][] = [
    ['name: [web\naddress: x\n', /web\.yaml:\d+:\d+: /],
    ['name: web\nname: web2\n', /web\.yaml:2:1: /],
    [`${MINIMAL}---\n${MINIMAL}`, /more than one YAML document/],
    [
      `${MINIMAL}x: &a [1,1,1,1,1,1,1,1,1,1]\ny: &b [${Array(60).fill('*a')}]\nz: [${Array(60).fill('*b')}]\n`,
      /alias/,
    ],
  ];
  for (const [text, message] of broken) {
    const error = await errorOf(() => parse(text));
    t.is(error.code, 'HF_CONFIG_SYNTAX');
    t.regex(error.message, message);
  }
});

test('an empty file is no mapping', async t => {
  const error = await errorOf(() => parse(''));
  t.regex(error.message, /the configuration is empty, expected a mapping with the fields name/);
});

test('unreadable files are named', async t => {
  const folder = temporaryFolder();
  const missing = await errorOf(() => readConfigFile(join(folder, 'none.yaml')));
  t.is(missing.code, 'HF_CONFIG_UNREADABLE');
  t.regex(missing.message, /none\.yaml: ENOENT/);
  t.is((await errorOf(() => readConfigFile(folder))).code, 'HF_CONFIG_UNREADABLE');
  writeFileSync(join(folder, 'latin1.yaml'), Buffer.from([0x6e, 0xe4]));
  t.is((await errorOf(() => readConfigFile(join(folder, 'latin1.yaml')))).code, 'HF_CONFIG_UNREADABLE');
});

type Json = { properties?: Record<string, Json>; anyOf?: Json[] };

/** Every field that a configuration can have, by its name: `guest.memoryMiB`. */
function fieldsOf(schema: Json, prefix = ''): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, inner]) => [
    `${prefix}${key}`,
    ...fieldsOf(inner, `${prefix}${key}.`),
  ]);
}

const FIELDS = fieldsOf(z.toJSONSchema(serviceSchema, { io: 'input', unrepresentable: 'any' }) as Json);

test('the fields are all found', t => {
  for (const field of [
    'name',
    'ports',
    'source.image',
    'guest.memoryMiB',
    'recovery.masks',
    'log.onFull',
    'storage',
  ]) {
    t.true(FIELDS.includes(field), FIELDS.join());
  }
});

for (const field of FIELDS) {
  test(`a value of the wrong type is refused by its field: ${field}`, async t => {
    const document = parseDocument(MINIMAL);
    for (const [what, wrong] of [
      ['a date', '2001-01-01'],
      ['a list of lists', [[1]]],
      ['a mapping', { nobody: 'knows' }],
    ] as const) {
      // A name of the right form is as good as any.
      if (
        what === 'a date' &&
        ['name', 'source.image', 'source.disk', 'source.domain', 'uplink.bridge'].includes(field)
      )
        continue;
      document.setIn(field.split('.'), document.createNode(wrong));
      if (field === 'source.domain' || field === 'source.disk') document.deleteIn(['source', 'image']);
      const error = await errorOf(() => parse(String(document)));
      t.is(error.code, 'HF_CONFIG_INVALID', what);
      const named = new RegExp(
        `web\\.yaml:\\d+:\\d+: ${field.replace('.', '\\.')}(\\[\\d+\\]|\\.\\w+)* is .*, expected .{4}`,
      );
      t.regex(error.message, named, what);
      t.true(error.remedy.length > 10);
    }
  });
}

test('IPv6: the address beside the IPv4 address, and its gateway', async t => {
  const six = (lines: string) => parse(MINIMAL.replace('ports', `${lines}\nports`));
  t.like(six('address6: 2001:db8::10/64\ngateway6: fe80::1'), {
    address: '192.0.2.10/24',
    address6: '2001:db8::10/64',
    gateway6: 'fe80::1',
  });
  t.like(six('address6: 2001:db8::10/64\ngateway6: 2001:0DB8:0::1'), { gateway6: '2001:0DB8:0::1' });
  for (const [lines, complaint] of [
    ['address6: 2001:db8::10', /address6 is "2001:db8::10", expected an IPv6 unicast host address/],
    ['address6: 2001:db8::/64', /address6 is/],
    ['address6: 2001:db8::10/127', /address6 is/],
    ['address6: 192.0.2.11/24', /address6 is/],
    ['address6: fe80::10/64', /address6 is/],
    ['address6: ff02::10/64', /address6 is/],
    ['address6: "::1/64"', /address6 is/],
    ['address6: fd00::1%eth0/64', /address6 is/],
    ['gateway6: fe80::1', /gateway6 is "fe80::1", expected nothing without address6/],
    [
      'address6: 2001:db8::10/64\ngateway6: 2001:db9::1',
      /gateway6 is "2001:db9::1", expected another host of the network of address6/,
    ],
    ['address6: 2001:db8::10/64\ngateway6: 2001:db8::10', /gateway6 is/],
    ['address6: 2001:db8::10/64\ngateway6: 192.0.2.1', /gateway6 is "192.0.2.1", expected an IPv6 address/],
  ] as const)
    t.regex((await errorOf(() => six(lines))).message, complaint, lines);
});

test('a structure that contains itself is refused as what it is', async t => {
  const error = await errorOf(() => parse(MINIMAL.replace('name: web', 'name: &a [*a]')));
  t.is(error.code, 'HF_CONFIG_INVALID');
  t.regex(error.message, /name is a structure that contains itself, expected a DNS label/);
});
