import { execFileSync } from 'node:child_process';
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { findImage } from '../../../supervisor/service/image.js';
import { errorOf, temporaryFolder } from './helpers.js';

const folder = temporaryFolder();
const file = (name: string, content: Buffer) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const bootable = Buffer.alloc(1 << 20);
bootable.writeUInt16LE(0xaa55, 510);
const of = (disk: string) => findImage({ kind: 'disk', disk });

test('a disk that could not boot is refused with what to do', async t => {
  const qcow2 = join(folder, 'a.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', qcow2, '16M']);
  const hidden = join(folder, 'hidden.raw');
  copyFileSync(qcow2, hidden);
  for (const [disk, message] of [
    [join(folder, 'none.raw'), /there is no .*none\.raw/],
    [folder, /is neither a file nor a block device/],
    [file('empty.raw', Buffer.alloc(1 << 20)), /has no boot record/],
    [file('short.raw', Buffer.alloc(1)), /has no boot record/],
    [file('false.qcow2', bootable), /is no qcow2 image/],
    [hidden, /is a qcow2 image/],
  ] as const) {
    const error = await errorOf(() => of(disk));
    t.is(error.code, 'HF_SOURCE_DISK', disk);
    t.regex(error.message, message);
    t.regex(error.remedy, /Give|Name|Install/);
  }
});

test('a disk with a boot record, and a qcow2 image by its name, are taken', async t => {
  const raw = file('good.raw', bootable);
  t.like(await of(raw), { place: raw, root: { path: raw, format: 'raw' } });
  t.is((await of(raw)).boot, undefined);
  const qcow2 = join(folder, 'good.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', qcow2, '16M']);
  t.is((await of(qcow2)).root.format, 'qcow2');
});
