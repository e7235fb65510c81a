import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { findWord } from '../../../guest-agent/words.js';

/** A structure of type 11 between others, as SMBIOS has it: the first string follows the count of them at once. */
const DMI = Buffer.from(
  '\x01\x1b\x00\x01QEMU\0\0' +
    '\x0b\x05\x00\x0e\x04holdfast.service=192.0.2.10/24\0holdfast.name=web-a\0holdfast.accept-queues\0holdfast.storage=shared:/srv/data\0\0' +
    '\x7f\x04\x00\x7f\0\0',
  'latin1',
);
const CMDLINE =
  'console=ttyS0 holdfast.service=192.0.2.10/24 xholdfast.name=no holdfast.name=web-a holdfast.accept-queues\n';

test('a word is found on a command line and among the strings of SMBIOS, whole', t => {
  for (const table of [DMI.toString('latin1'), CMDLINE]) {
    t.is(findWord(table, 'service'), '192.0.2.10/24');
    t.is(findWord(table, 'name'), 'web-a');
    t.is(findWord(table, 'accept-queues'), '');
    t.is(findWord(table, 'service6'), undefined);
  }
  t.is(findWord(DMI.toString('latin1'), 'storage'), 'shared:/srv/data');
});

test('the shell reads the same', t => {
  const folder = mkdtempSync(join(tmpdir(), 'hf-words-'));
  t.teardown(() => rmSync(folder, { recursive: true }));

  for (const [cmdline, dmi] of [
    [CMDLINE, Buffer.alloc(0)],
    ['quiet\n', DMI],
  ] as const) {
    writeFileSync(join(folder, 'cmdline'), cmdline);
    writeFileSync(join(folder, 'DMI'), dmi);
    const library = readFileSync('guest-agent/network.sh', 'utf8')
      .replace('/proc/cmdline', join(folder, 'cmdline'))
      .replace('/sys/firmware/dmi/tables/DMI', join(folder, 'DMI'));
    const script = `set -e\n${library}\nholdfast_read\necho "$name $service [$gateway]"`;
    t.is(execFileSync('sh', ['-c', script], { encoding: 'utf8' }), 'web-a 192.0.2.10/24 []\n');
  }
});
