/**
 * `make package`: the guest agent as a Debian package, for a Debian that is to be a guest (README, "On a Debian of your own").
 *
 *   node build/images/package.js [OUTPUT]
 */
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AGENT_ROOT, furnishAgent } from './agent.js';
import { progress, run } from './commands.js';
import { findAgentInputs } from './inputs.js';

/** Files of guest-agent/install, by the directory that they go to. */
const PLACES: Record<string, { mode: number; files: string[] }> = {
  'lib/systemd/system': {
    mode: 0o644,
    files: ['holdfast-agent.service', 'holdfast-network.service', 'holdfast-shutdown.service'],
  },
  [`${AGENT_ROOT}/bin`]: { mode: 0o755, files: ['holdfast-network', 'holdfast-announce'] },
  'etc/holdfast': { mode: 0o644, files: ['services.json'] },
  DEBIAN: { mode: 0o755, files: ['postinst', 'prerm'] },
};

/** Writes the package to `output`. Throws `HF_IMAGE_INPUT` or `HF_IMAGE_BUILD`. */
export async function buildPackage(repo: string, output: string): Promise<void> {
  progress(`packing ${basename(output)}`);
  const stage = mkdtempSync(join(tmpdir(), 'holdfast-package-'));
  try {
    chmodSync(stage, 0o755);
    await furnishAgent(findAgentInputs(repo), stage);
    const from = join(repo, 'guest-agent/install');
    for (const [directory, { mode, files }] of Object.entries(PLACES)) {
      mkdirSync(join(stage, directory), { recursive: true });
      for (const name of files) {
        copyFileSync(join(from, name), join(stage, directory, name));
        chmodSync(join(stage, directory, name), mode);
      }
    }
    mkdirSync(join(stage, 'usr/bin'), { recursive: true });
    copyFileSync(join(repo, 'images/boot/holdfast-guest'), join(stage, 'usr/bin/holdfast-guest'));
    chmodSync(join(stage, 'usr/bin/holdfast-guest'), 0o755);
    const { version } = JSON.parse(readFileSync(join(repo, 'package.json'), 'utf8')) as { version: string };
    const control = readFileSync(join(from, 'control'), 'utf8');
    writeFileSync(join(stage, 'DEBIAN/control'), control.replace('\n', `\nVersion: ${version}\n`));
    writeFileSync(join(stage, 'DEBIAN/conffiles'), '/etc/holdfast/services.json\n');
    mkdirSync(dirname(output), { recursive: true });
    // Quickly: three quarters of it are Node.
    await run('dpkg-deb', ['--root-owner-group', '-Zzstd', '-z3', '--build', stage, output]);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const repo = fileURLToPath(new URL('../..', import.meta.url));
  const output = resolve(process.argv[2] ?? join(repo, 'build/holdfast-guest.deb'));
  await buildPackage(repo, output);
  process.stdout.write(`${output}\n`);
}
