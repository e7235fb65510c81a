import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { progress, run } from './commands.js';

/**
 * What a root on a virtio or Xen disk, its NICs and its panic notifier need. The order is that of their start;
 * dependencies are added from modules.dep. One that a kernel has built in, or lacks, is passed over.
 */
const BOOT_MODULES = [
  'virtio_pci',
  'virtio_blk',
  'xen-blkfront',
  'ext4',
  'pvpanic-mmio',
  'pvpanic-pci',
  'virtio_net',
  'xen-netfront',
  'virtio-rng',
];

export interface Kernel {
  version: string;
  vmlinuz: string;
  /** A directory that holds <version>/. */
  modules: string;
}

/** Unpacks the kernel's package from `debs` into `dir`; `busybox` makes the table of module dependencies. */
export async function unpackKernel(debs: string, dir: string, busybox: string): Promise<Kernel> {
  const deb = readdirSync(debs).find(name => name.startsWith('linux-image-'));
  if (deb === undefined) throw new Error(`no kernel package in ${debs}`);
  progress(`unpacking ${deb}`);
  await run('dpkg-deb', ['-x', join(debs, deb), dir]);
  const modules = join(dir, 'lib/modules');
  const version = readdirSync(modules)[0]!;
  await run(busybox, ['depmod', '-b', dir, version]);
  return { version, vmlinuz: join(dir, 'boot', `vmlinuz-${version}`), modules };
}

/** Builds the module of the drill `guest-hang` against the kernel's headers in `debs`; returns the file. */
export async function buildHaltModule(kernel: Kernel, debs: string, source: string, temp: string) {
  progress('building the drill module');
  const dir = join(temp, 'headers');
  for (const deb of readdirSync(debs).filter(name => /^linux-(headers|kbuild)-/.test(name))) {
    await run('dpkg-deb', ['-x', join(debs, deb), dir]);
  }
  const headers = join(dir, 'usr/src', `linux-headers-${kernel.version}`);
  // It names the common headers by where they are once installed.
  const makefile = join(headers, 'Makefile');
  writeFileSync(makefile, readFileSync(makefile, 'utf8').replaceAll('/usr/src/', join(dir, 'usr/src/')));
  const module = join(temp, 'halt');
  cpSync(source, module, { recursive: true });
  await run('make', ['-s', '-C', headers, `M=${module}`, 'modules']);
  return join(module, 'holdfast-halt.ko');
}

/** Writes the initramfs: busybox, the modules, images/boot/init. */
export async function buildInitrd(
  kernel: Kernel,
  busybox: string,
  init: string,
  temp: string,
  output: string,
) {
  progress('building the initramfs');
  const dir = join(temp, 'initrd');
  for (const name of ['bin', 'dev', 'proc', 'root', 'modules'])
    mkdirSync(join(dir, name), { recursive: true });
  copyFileSync(busybox, join(dir, 'bin/busybox'));
  symlinkSync('busybox', join(dir, 'bin/sh'));
  copyFileSync(init, join(dir, 'init'));
  const files = moduleOrder(readFileSync(join(kernel.modules, kernel.version, 'modules.dep'), 'utf8'));
  for (const file of files) {
    copyFileSync(join(kernel.modules, kernel.version, file), join(dir, 'modules', basename(file)));
  }
  writeFileSync(join(dir, 'modules/order'), `${files.map(file => basename(file)).join('\n')}\n`);
  // Not compressed: it is a few MiB, and an emulated CPU unpacks slower than the host reads.
  await run('sh', ['-ec', `find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >'${output}'`], {
    cwd: dir,
  });
}

/** Files of BOOT_MODULES, each after what it depends on; `dep` is the text of modules.dep. */
export function moduleOrder(dep: string, wanted: readonly string[] = BOOT_MODULES): string[] {
  const byName = new Map<string, string[]>();
  for (const line of dep.split('\n')) {
    const [file, rest = ''] = line.split(':');
    if (!file) continue;
    // modules.dep lists the nearest dependency first.
    const needs = rest.trim().split(/\s+/).filter(Boolean).reverse();
    byName.set(
      basename(file)
        .replace(/\.ko.*$/, '')
        .replaceAll('-', '_'),
      [...needs, file],
    );
  }
  return [...new Set(wanted.flatMap(name => byName.get(name.replaceAll('-', '_')) ?? []))];
}
