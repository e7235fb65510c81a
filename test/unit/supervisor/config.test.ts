import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { parseServiceConfig, readConfigFile } from '../../../supervisor/config/config.js';
import { errorOf, MINIMAL, temporaryFolder } from './helpers.js';

const parse = (text: string) => parseServiceConfig(text, '/etc/holdfast/web.yaml');

test('the minimal configuration gets every default', t => {
  t.deepEqual(parse(MINIMAL), {
    name: 'web',
    address: '192.0.2.10/24',
    ports: [80],
    source: { kind: 'image', image: '/images/web' },
    uplink: { bridge: 'br0' },
    management: { subnet: '192.168.77.0/24' },
    guest: { memoryMiB: 384, vcpus: 1 },
    hypervisor: {},
    detect: { heartbeatMs: 50, misses: 3 },
    recovery: { compare: 'sampled', masks: ['http-date'], former: 'keep', replayDeadlineMs: 30_000 },
    log: { sizeMiB: 256, onFull: 'backpressure' },
    storage: 'none',
  });
});

test('the example states the defaults it says it states', t => {
  const example = parse(readFileSync('supervisor/config/example.yaml', 'utf8'));
  t.deepEqual(example, {
    ...parse(MINIMAL),
    gateway: '192.0.2.1',
    ports: [80, 8080],
    source: { kind: 'image', image: '/images/appliance.yaml' },
  });
});

test('a relative image starts at the folder of the file; a domain is the other kind of source', t => {
  t.like(parse(MINIMAL.replace('/images/web', 'images/web')), {
    source: { image: '/etc/holdfast/images/web' },
  });
  t.deepEqual(parse(MINIMAL.replace('image: /images/web', 'domain: old-web')).source, {
    kind: 'domain',
    domain: 'old-web',
  });
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
    /source is .*expected exactly one of image and domain$/,
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
    'storage of later',
    'ports',
    'storage: shared\nports',
    /storage is "shared", expected none .*not yet supported/,
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
    /log is \[1\], expected a mapping with the fields sizeMiB, onFull$/,
  ],
  [
    'wrong word',
    'ports',
    'recovery: { former: burn }\nports',
    /former is "burn", expected one of keep, destroy, dump$/,
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
