import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** A Linux kernel to boot, and where its modules are: a directory tree, or an initrd that carries them. */
export interface TestKernel {
  vmlinuz: string;
  modules: string;
}

const cache = '/var/cache/holdfast/test-kernel';

/**
 * `HOLDFAST_TEST_KERNEL` if set, with its modules in `HOLDFAST_TEST_MODULES` or in the `initrd` beside it; else an
 * appliance image's kernel, or Debian's cloud kernel, downloaded once and unpacked without being installed.
 */
export function findKernel(): TestKernel {
  const { HOLDFAST_TEST_KERNEL: vmlinuz, HOLDFAST_TEST_MODULES: modules } = process.env;
  if (vmlinuz) return { vmlinuz, modules: modules ?? join(dirname(vmlinuz), 'initrd') };
  return imageKernel() ?? unpacked() ?? download();
}

function unpacked(): TestKernel | undefined {
  const boot = join(cache, 'boot');
  const file = existsSync(boot) ? readdirSync(boot).find(name => name.startsWith('vmlinuz-')) : undefined;
  return file ? { vmlinuz: join(boot, file), modules: join(cache, 'lib/modules') } : undefined;
}

function imageKernel(): TestKernel | undefined {
  const images = '/var/cache/holdfast/images';
  const names = existsSync(images) ? readdirSync(images) : [];
  return names
    .map(name => ({ vmlinuz: join(images, name, 'vmlinuz'), modules: join(images, name, 'initrd') }))
    .find(({ vmlinuz, modules }) => existsSync(vmlinuz) && existsSync(modules));
}

function download(): TestKernel {
  mkdirSync(cache, { recursive: true });
  const script = [
    "package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')",
    'apt-get download -q "$package"',
    'dpkg-deb -x "$package"_*.deb .',
    'rm -f "$package"_*.deb',
  ].join('\n');
  execFileSync('/bin/sh', ['-euc', script], { cwd: cache, stdio: 'ignore' });
  const kernel = unpacked();
  if (!kernel)
    throw new Error(`no kernel: set HOLDFAST_TEST_KERNEL, or make linux-image-cloud-amd64 available`);
  return kernel;
}
