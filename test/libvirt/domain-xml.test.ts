import test from 'ava';
import type { GuestSpec } from '../../hypervisor-shim/hypervisor.js';
import { dataDiskXml, domainXml, hasDataDisk } from '../../hypervisor-shim/libvirt/domain-xml.js';
import { element, escapeXml, textElement } from '../../hypervisor-shim/libvirt/xml.js';

const spec: GuestSpec = {
  name: 'web-a',
  memoryMiB: 256,
  vcpus: 2,
  boot: { kernel: '/k', initrd: '/i', cmdline: 'console=ttyS0' },
  disks: [{ path: '/d.qcow2', format: 'qcow2' }],
  nics: [
    { tap: 'tap-a', mac: '52:54:00:00:00:01' },
    { tap: 'tap-m', mac: '52:54:00:00:00:02' },
  ],
  controlPage: { shm: 'web-a-page', bytes: 1 << 20 },
  serialLog: '/s.log',
};

test('values cannot leave their attribute or element', t => {
  t.is(escapeXml(`<&>"'`), '&#60;&#38;&#62;&#34;&#39;');
  t.is(escapeXml('a\nb\tc'), 'a&#10;b&#9;c');
  t.is(escapeXml('Grüße 🛟'), 'Grüße 🛟');
  t.is(textElement('name', '</name>$&'), '<name>&#60;/name&#62;$&#38;</name>');
  t.is(element('a', { b: '"/><x y="' }), '<a b="&#34;/&#62;&#60;x y=&#34;"/>');
});

test('what XML has no form for is refused', t => {
  for (const bad of ['\0', 'a\u0001', '\u001b[0m', '\ud800', 'x\uffff']) {
    t.throws(() => escapeXml(bad), { instanceOf: RangeError });
  }
});

test('a hostile spec stays data', t => {
  const evil = `x'/><on_crash>restart</on_crash><y z="`;
  const xml = domainXml(
    { ...spec, name: evil, serialLog: evil, disks: [{ path: evil, format: 'raw' }] },
    { accel: 'tcg' },
  );
  t.is(xml.match(/<on_crash>/g)?.length, 1);
  t.false(xml.includes(evil));
});

test('a guest without direct boot boots its disk', t => {
  const { boot: _, ...diskOnly } = spec;
  const xml = domainXml(diskOnly, { accel: 'kvm' });
  t.regex(xml, /<domain type="kvm">/);
  t.regex(xml, /<boot dev="hd"\/>/);
  t.notRegex(xml, /<kernel>/);
});

test('words for a guest with a boot loader of its own are OEM strings, and stay data', t => {
  const xml = domainXml({ ...spec, oemStrings: ['holdfast.name=web-a', '</entry><x>'] }, { accel: 'tcg' });
  t.regex(xml, /<smbios mode="sysinfo"\/>/);
  t.regex(
    xml,
    /<sysinfo type="smbios">\s*<oemStrings>\s*<entry>holdfast\.name=web-a<\/entry>\s*<entry>&#60;\/entry/,
  );
  t.notRegex(domainXml(spec, { accel: 'tcg' }), /smbios/);
});

test('NICs have the lowest slots, in their order', t => {
  const xml = domainXml(spec, { accel: 'tcg' });
  t.regex(xml, /tap-a[\s\S]*slot="3"[\s\S]*tap-m[\s\S]*slot="4"/);
  const slots = [...xml.matchAll(/slot="(\d+)"/g)].map(match => Number(match[1]));
  t.is(new Set(slots).size, slots.length);
});

test('an emulated machine never has room for one vCPU only', t => {
  const of = (vcpus: number, accel: 'kvm' | 'tcg') =>
    /<vcpu [^/]*/.exec(domainXml({ ...spec, vcpus }, { accel }))?.[0];
  t.is(of(1, 'tcg'), '<vcpu placement="static" current="1">2<');
  t.is(of(2, 'tcg'), '<vcpu placement="static">2<');
  t.is(of(1, 'kvm'), '<vcpu placement="static">1<');
});

test('a data disk has a port of its own to be plugged into, and its path stays data', t => {
  const xml = domainXml({ ...spec, takesDataDisk: true }, { accel: 'tcg' });
  t.regex(xml, /index="1" model="pcie-root-port"/);
  t.false(hasDataDisk(xml));
  t.notRegex(domainXml(spec, { accel: 'tcg' }), /pcie-root-port/);
  const evil = `x'/><serial>y</serial><z z="`;
  const disk = dataDiskXml({ path: evil, format: 'raw', kind: 'file' });
  t.false(disk.includes(evil));
  t.true(hasDataDisk(disk));
  t.regex(disk, /<address type="pci" domain="0" bus="1"/);
  t.regex(dataDiskXml({ path: '/dev/x', format: 'raw', kind: 'block' }), /<source dev="\/dev\/x"/);
});

test('a shared directory comes with memory that its server can read', t => {
  const xml = domainXml({ ...spec, sharedDirectory: '/d' }, { accel: 'tcg' });
  t.regex(xml, /<access mode="shared"/);
  t.regex(xml, /<cache mode="none"/);
  t.notRegex(domainXml(spec, { accel: 'tcg' }), /memoryBacking|filesystem/);
});

test('impossible specs name the field', t => {
  const refuse = (more: Partial<GuestSpec>, message: RegExp) =>
    t.throws(() => domainXml({ ...spec, ...more }, { accel: 'tcg' }), { instanceOf: RangeError, message });
  refuse({ controlPage: { shm: 'p', bytes: 4096 } }, /controlPage.bytes/);
  refuse({ controlPage: { shm: 'p', bytes: 3 << 20 } }, /controlPage.bytes/);
  refuse({ controlPage: { shm: '../p', bytes: 1 << 20 } }, /controlPage.shm/);
  refuse({ nics: Array.from({ length: 6 }, () => ({ tap: 't', mac: 'm' })) }, /nics/);
});
