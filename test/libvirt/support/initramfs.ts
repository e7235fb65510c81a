import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { TestKernel } from './kernel.js';

/** In the order in which they are loaded. */
const moduleNames = [
  'pvpanic',
  'pvpanic-mmio',
  'virtio_ring',
  'virtio',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'failover',
  'net_failover',
  'virtio_net',
  'virtio_blk',
];

/**
 * The guest of these tests: busybox and a script. The kernel command line says what it does once it is up:
 * `act=idle`, `act=panic`, `act=poweroff`, `act=reboot`, `act=disk` (names each disk that has a serial number).
 */
const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
for module in ${moduleNames.join(' ')}; do
  test -e /modules/$module.ko && insmod /modules/$module.ko
done
echo "interfaces: $(cat /sys/class/net/*/address 2>/dev/null | tr '\\n' ' ')"
echo "guest-up"
case "$(cat /proc/cmdline)" in
*act=panic*) echo c > /proc/sysrq-trigger ;;
*act=poweroff*) poweroff -f ;;
*act=reboot*) reboot -f ;;
*act=disk*) while :; do cat /sys/block/*/serial 2>/dev/null; usleep 20000; done ;;
esac
while :; do sleep 1; done
`;

/** Builds the initramfs in `directory` and returns its path. Needs busybox (static) and cpio. */
export function buildInitramfs(directory: string, kernel: TestKernel): string {
  const root = join(directory, 'root');
  for (const name of ['bin', 'dev', 'proc', 'sys', 'modules'])
    mkdirSync(join(root, name), { recursive: true });
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  const modules = moduleTree(kernel.modules, directory);
  for (const file of readdirSync(modules, { recursive: true, encoding: 'utf8' })) {
    if (file.endsWith('.ko') && moduleNames.includes(basename(file, '.ko'))) {
      copyFileSync(join(modules, file), join(root, 'modules', basename(file)));
    }
  }
  writeFileSync(join(root, 'init'), init, { mode: 0o755 });
  const initrd = join(directory, 'initrd');
  execFileSync('/bin/sh', ['-euc', `find . | cpio --quiet -o -H newc | gzip -1 > "${initrd}"`], {
    cwd: root,
  });
  return initrd;
}

/** A directory of modules as it is, or what an initrd holds of them. */
function moduleTree(source: string, scratch: string): string {
  if (statSync(source).isDirectory()) return source;
  const tree = join(scratch, 'unpacked');
  mkdirSync(tree);
  const unpack = '{ gzip -dc "$1" 2>/dev/null || cat "$1"; } | cpio --quiet -id "*.ko"';
  execFileSync('/bin/sh', ['-euc', unpack, 'unpack', source], { cwd: tree });
  return tree;
}
