import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { makeDirectories } from '../../../hypervisor-shim/directories.js';
import { temporaryFolder } from '../supervisor/helpers.js';

const codeOf = (error: Error | undefined) => (error as NodeJS.ErrnoException | undefined)?.code;

test('directories are made with those above them, and may be there already', t => {
  const path = join(temporaryFolder(), 'a/b/c');
  for (let i = 0; i < 2; i++) makeDirectories(path, 0o700);
  t.is(statSync(path).mode & 0o777, 0o700);
});

test('where none can be made it says so, and ends', t => {
  const file = join(temporaryFolder(), 'file');
  writeFileSync(file, '');
  t.is(codeOf(t.throws(() => makeDirectories(file))), 'EEXIST');
  t.is(codeOf(t.throws(() => makeDirectories(join(file, 'a/b')))), 'ENOTDIR');
  // mkdir(2) says ENOENT although /proc is there.
  t.is(codeOf(t.throws(() => makeDirectories('/proc/x/y'))), 'ENOENT');
});
