import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { parseServiceConfig } from '../../../supervisor/config/config.js';
import { checkConflicts } from '../../../supervisor/refusals.js';
import { checkStorage, dataDisk } from '../../../supervisor/service/storage-check.js';
import { errorOf, MINIMAL, temporaryFolder } from './helpers.js';

const folder = temporaryFolder();
const mount = '/srv/data';
const complaint = (disk: string) => errorOf(() => checkStorage({ mode: 'handed-over', disk, mount }));

function makeFile(name: string, bytes: number): string {
  const path = join(folder, name);
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

function makeDisk(name: string): string {
  const path = makeFile(name, 16 << 20);
  execFileSync('mkfs.ext4', ['-q', path]);
  return path;
}

test('a disk that guests could not use is refused with what to do', async t => {
  const cases: [string, RegExp][] = [
    [join(folder, 'none.raw'), /there is no .*none\.raw/],
    [folder, /is neither a file nor a block device/],
    ['/dev/null', /is neither a file nor a block device/],
    [makeFile('empty.raw', 1 << 20), /holds no ext4 file system/],
    [makeFile('false.qcow2', 1 << 20), /is no qcow2 image: /],
  ];
  for (const [path, message] of cases) {
    const error = await complaint(path);
    t.is(error.code, 'HF_STORAGE_DISK');
    t.regex(error.message, message);
    t.regex(error.remedy, /mkfs\.ext4/);
  }
});

test('a raw disk with ext4 and a qcow2 image are taken', async t => {
  await t.notThrowsAsync(checkStorage({ mode: 'handed-over', disk: makeDisk('good.raw'), mount }));
  const qcow2 = join(folder, 'good.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', qcow2, '16M']);
  await t.notThrowsAsync(checkStorage({ mode: 'handed-over', disk: qcow2, mount }));
  t.deepEqual(dataDisk(qcow2), { path: qcow2, kind: 'file', format: 'qcow2' });
});

test('the name tells the format, not what a guest has written', async t => {
  const disk = join(folder, 'trap.raw');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '16M']);
  t.is(dataDisk(disk).format, 'raw');
  t.regex((await complaint(disk)).message, /holds no ext4 file system/);
});

test('a disk that another virtual machine has open is refused', async t => {
  const disk = makeDisk('open.raw');
  const drive = ['-drive', `if=none,id=d,file=${disk},format=raw`, '-device', 'virtio-blk-pci,drive=d'];
  const machine = [
    '-M',
    'q35',
    '-accel',
    'tcg',
    '-m',
    '64',
    '-display',
    'none',
    '-nodefaults',
    '-S',
    '-qmp',
    'stdio',
  ];
  const qemu = spawn('qemu-system-x86_64', [...machine, ...drive], { stdio: ['pipe', 'pipe', 'ignore'] });
  t.teardown(() => qemu.kill('SIGKILL'));
  await new Promise(resolve => qemu.stdout.once('data', resolve)); // it speaks when it has all its devices
  t.regex((await complaint(disk)).message, /is in use by another virtual machine/);
});

test('a shared directory must be one', async t => {
  const check = (directory: string) => checkStorage({ mode: 'shared', directory, mount });
  await t.notThrowsAsync(check(folder));
  for (const [path, message] of [
    [join(folder, 'none'), /there is no/],
    [makeFile('file', 1), /is no directory/],
  ] as const) {
    const error = await errorOf(() => check(path));
    t.is(error.code, 'HF_STORAGE_DIRECTORY');
    t.regex(error.message, message);
  }
});

test('two services never get the same disk, whatever they call it', async t => {
  const disk = makeDisk('one.raw');
  mkdirSync(join(folder, 'links'));
  const link = join(folder, 'links', 'other.raw');
  symlinkSync(disk, link);
  const config = (name: string, host: number, path: string) =>
    parseServiceConfig(
      MINIMAL.replace('name: web', `name: ${name}`)
        .replace('192.0.2.10', `192.0.2.${host}`)
        .replace(
          'ports',
          `management: { subnet: 192.168.${host}.0/24 }\nstorage: { mode: handed-over, disk: ${path}, mount: /srv }\nports`,
        ),
      '/x.yaml',
    );
  const first = config('a', 10, disk);
  const error = await errorOf(() => checkConflicts(config('b', 11, link), [first]));
  t.is(error.code, 'HF_CONFIG_CONFLICT');
  t.regex(error.message, /storage\.disk is .*other\.raw, which a has already/);
  t.notThrows(() => checkConflicts(config('b', 11, makeDisk('two.raw')), [first]));
});
