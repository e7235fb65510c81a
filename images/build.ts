/** `images/build`: an appliance image from Debian packages, cached by the hash of everything that goes into it. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { HoldfastError } from '../hypervisor-shim/errors.js';
import { killAll, progress, run } from './commands.js';
import { findInputs, hashInputs, type Inputs } from './inputs.js';
import { buildHaltModule, buildInitrd, unpackKernel } from './kernel.js';
import { furnishRoot, installPackages } from './root.js';
import { type Appliance, readAppliance } from './schema.js';

const KERNEL_PACKAGE = 'linux-image-cloud-amd64';
const LOCKED = 'HOLDFAST_IMAGE_LOCKED';
/**
 * Kernel command line of every guest; the supervisor adds holdfast.*. quiet: a serial line is slow, and a panic is
 * printed all the same. no5lvl, mitigations=off: an emulated CPU pays for deep page tables and for flushes. panic=0: a
 * panicked guest stays for diagnosis.
 */
const CMDLINE =
  'console=ttyS0 quiet loglevel=4 panic=0 tsc=reliable no_timer_check mitigations=off no5lvl random.trust_cpu=on net.ifnames=0';

async function build(inputs: Inputs, appliance: Appliance, hash: string, temp: string): Promise<void> {
  const root = join(temp, 'root');
  const dir = (name: string) => join(temp, name);
  await installPackages(inputs, appliance, KERNEL_PACKAGE, { root, debs: dir('debs'), temp });
  const busybox = join(root, 'bin/busybox');
  const kernel = await unpackKernel(dir('debs'), dir('kernel'), busybox);
  mkdirSync(dir('image'));
  renameSync(kernel.vmlinuz, dir('image/vmlinuz'));
  await buildInitrd(kernel, busybox, join(inputs.boot, 'init'), temp, dir('image/initrd'));
  const halt = await buildHaltModule(kernel, dir('debs'), inputs.halt, temp);
  const files = await furnishRoot(inputs, appliance, root, { modules: kernel.modules, halt });

  progress('making the file system');
  const used = Number((await run('du', ['-sm', '--apparent-size', root])).split('\t')[0]);
  const mib = Math.ceil((used * 1.06) / 16) * 16 + appliance.freeMiB;
  // A journal of 16 MiB is plenty, and no reserve for root: nobody else writes.
  const ext4 = [
    '-q',
    '-F',
    '-m',
    '0',
    '-J',
    'size=16',
    '-L',
    'holdfast',
    '-E',
    'lazy_itable_init=0,nodiscard',
  ];
  await run('mkfs.ext4', [...ext4, '-d', root, dir('root.raw'), `${mib}M`], {
    remedy: () => 'Free some 5 GiB where the cache is, or move it with HOLDFAST_CACHE.',
  });
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', dir('root.raw'), dir('image/root.qcow2')]);

  const sizes = Object.fromEntries(
    ['vmlinuz', 'initrd', 'root.qcow2'].map(name => [name, statSync(dir(`image/${name}`)).size]),
  );
  const manifest = {
    name: appliance.name,
    hash,
    kernel: kernel.version,
    cmdline: CMDLINE,
    sizes,
    diskMiB: mib,
    services: appliance.services.map(({ name, ports }) => ({ name, ports })),
    ports: appliance.services.flatMap(service => service.ports),
    seed: appliance.content?.seed,
    files,
  };
  writeFileSync(dir('image/manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

/** The cached image, or undefined. Renamed into place when complete, so existence is enough. */
function cached(image: string): string | undefined {
  return existsSync(join(image, 'manifest.json')) ? image : undefined;
}

async function buildLocked(inputs: Inputs, appliance: Appliance, hash: string, image: string): Promise<void> {
  // We hold the lock, so whatever is left of an earlier build of this image is dead.
  const parent = join(image, '..');
  // --one-file-system: should a mount of a killed package script be left, its content is not ours.
  const remove = (path: string) => spawnSync('rm', ['-rf', '--one-file-system', path]);
  for (const name of readdirSync(parent))
    if (name.startsWith(`.${hash}.`) && !name.endsWith('.lock')) remove(join(parent, name));
  const temp = join(parent, `.${hash}.${process.pid}`);
  mkdirSync(temp, { mode: 0o755 });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      killAll();
      remove(temp);
      progress('interrupted; nothing is left behind');
      process.exit(130);
    });
  }
  const started = Date.now();
  try {
    await build(inputs, appliance, hash, temp);
    rmSync(image, { recursive: true, force: true });
    renameSync(join(temp, 'image'), image);
    progress(`done in ${Math.round((Date.now() - started) / 1000)} s`);
  } finally {
    remove(temp);
  }
}

async function main(repo: string, yaml: string): Promise<void> {
  const appliance = readAppliance(resolve(yaml));
  const inputs = findInputs(repo, yaml);
  const hash = hashInputs(inputs, appliance);
  const images = join(process.env.HOLDFAST_CACHE ?? '/var/cache/holdfast', 'images');
  const image = join(images, hash);
  if (cached(image) === undefined) {
    if (process.getuid?.() !== 0) {
      throw new HoldfastError(
        'HF_IMAGE_BUILD',
        'building an image needs root',
        'Repeat the command as root.',
      );
    }
    mkdirSync(images, { recursive: true });
    if (process.env[LOCKED] !== hash) {
      // Node cannot lock a file: become a process that flock(1) runs under the lock. It looks in the cache again.
      progress(`building ${appliance.name} ${hash} (or waiting for who does)`);
      process.exitCode = await underLock(join(images, `.${hash}.lock`), hash);
      return;
    }
    await buildLocked(inputs, appliance, hash, image);
  }
  process.stdout.write(`${image}\n`);
}

function underLock(lock: string, hash: string): Promise<number> {
  // --no-fork: the child is the builder itself, so that it gets our signals and can clean up.
  const child = spawn('flock', ['--no-fork', lock, process.execPath, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, [LOCKED]: hash },
  });
  // A terminal's signal reaches both; the second one is harmless.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', code => resolve(code ?? 1));
  });
}

const [repo, yaml] = process.argv.slice(2);
if (repo === undefined || yaml === undefined) throw new Error('called by images/build');
main(repo, yaml).catch(error => {
  process.stderr.write(`images: ${error instanceof HoldfastError ? error : (error as Error).stack}\n`);
  process.exitCode = 1;
});
