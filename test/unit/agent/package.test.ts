/** The package for a stock Debian. That it installs in one is shown by test/stock, which takes minutes. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { buildPackage } from '../../../images/package.js';

const folder = mkdtempSync(join(tmpdir(), 'hf-package-'));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));
const root = join(folder, 'root');
const text = (path: string) => readFileSync(join(root, path), 'utf8');

test('the package has all that its units and scripts name', async t => {
  const deb = join(folder, 'holdfast-guest.deb');
  await buildPackage(process.cwd(), deb);
  execFileSync('dpkg-deb', ['--raw-extract', deb, root]);
  t.regex(text('DEBIAN/control'), /^Package: holdfast-guest\nVersion: \d+\.\d+/);
  t.is(text('DEBIAN/conffiles'), '/etc/holdfast/services.json\n');

  const units = join(root, 'lib/systemd/system');
  const names = readdirSync(units);
  t.is(names.length, 3);
  for (const name of names) {
    t.true(text('DEBIAN/postinst').includes(name) && text('DEBIAN/prerm').includes(name), name);
    const ours = readFileSync(join(units, name), 'utf8').match(/\/opt\/holdfast\/[\w./-]+/g) ?? [];
    t.true(ours.length > 0, name);
    for (const path of ours) t.true(existsSync(join(root, path)), `${name}: ${path}`);
  }
  const scripts = ['DEBIAN/postinst', 'DEBIAN/prerm', 'opt/holdfast/bin/holdfast-network'];
  for (const script of [...scripts, 'opt/holdfast/bin/holdfast-announce', 'opt/holdfast/network.sh'])
    t.notThrows(() => execFileSync('sh', ['-n', join(root, script)]), script);

  // Node loads the addon, and both run here as they will there.
  const program = `import('${join(root, 'opt/holdfast/guest-agent/native/native.js')}').then(m => m.loadAddon())`;
  t.notThrows(() => execFileSync(join(root, 'opt/holdfast/bin/node'), ['-e', program]));
});
