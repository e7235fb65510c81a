/** What doctor says of the place to which the log is to be spilled. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { parseServiceConfig } from '../../../supervisor/config/config.js';
import { resourceChecks } from '../../../supervisor/doctor/resource-checks.js';
import { MINIMAL, temporaryFolder } from './helpers.js';

async function look(log: string) {
  const config = parseServiceConfig(MINIMAL.replace('ports', `log: ${log}\nports`), '/etc/web.yaml');
  const check = resourceChecks({
    config,
    services: [],
    socket: '/nowhere/socket',
    stateDir: '/var/lib/holdfast',
  });
  return check.find(({ name }) => name === 'spill')?.look();
}

test('a log that is not spilled is not asked for', async t => {
  t.is(await look('{ sizeMiB: 64 }'), undefined);
});

test('a directory that has room, also one that is still to be made', async t => {
  const place = join(temporaryFolder(), 'not/yet');
  t.like(await look(`{ spill: { directory: ${place}, sizeMiB: 1 } }`), { level: 'ok' });
});

test('a directory that lacks room, a file, a tmpfs', async t => {
  const place = temporaryFolder();
  writeFileSync(join(place, 'file'), '');
  const found = await look(`{ spill: { directory: ${place}, sizeMiB: 16777216 } }`);
  t.like(found, { level: 'warning', remedy: 'Free some, or lower log.spill.sizeMiB.' });
  t.regex((found as { found: string }).found, /MiB are free in .* for 16777216 MiB of spilled log$/);
  t.like(await look(`{ spill: { directory: ${join(place, 'file')} } }`), { level: 'failure' });
  t.like(await look('{ spill: { directory: /dev/shm, sizeMiB: 1 } }'), { level: 'warning' });
});
