import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { mountedOver } from './daemon-config.js';

const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/*
 * libvirtd has its directories compiled in, so it gets private ones mounted over them in a mount namespace of its own.
 * The host must have (empty) directories to mount over. The lock, on a file that everybody has, keeps another private
 * daemon's `removeScript` from taking them away between mkdir and mount. Propagation `slave`: what the host mounts or
 * unmounts later is seen, and a network namespace can be deleted on the host without staying pinned here.
 */
const mounts = Object.entries(mountedOver);

/** Without this user of the full libvirt package Debian's QEMU driver refuses to load, though qemu.conf names another. */
const unprivilegedUser = {
  passwd: 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin',
  group: 'libvirt-qemu:x:64055:',
};

const startScript = [
  'lock="$(command -v libvirtd)"; exec 9<"$lock"; flock 9',
  ...mounts.map(([name, over]) => `mkdir -p ${over}; mount --bind "$1/${name}" ${over}`),
  'exec 9<&-',
  ...Object.entries(unprivilegedUser).map(
    ([file, line]) =>
      `grep -qs ^libvirt-qemu: /etc/${file} || { { cat /etc/${file}; echo ${line}; } > "$1/etc/${file}"; mount --bind "$1/etc/${file}" /etc/${file}; }`,
  ),
  'exec libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid',
].join('\n');

/** Removes the mount points again, unless they hold something or are mounted over in anybody's namespace. */
const removeScript = [
  'lock="$(command -v libvirtd)"; exec 9<"$lock"; flock 9',
  ...mounts.map(
    ([, over]) =>
      `grep -qs ' ${over} ' /proc/[0-9]*/mountinfo || rmdir --ignore-fail-on-non-empty ${over} 2>/dev/null || :`,
  ),
].join('\n');

/** Starts libvirtd in a mount namespace of its own; `directory` is `<stateDir>/libvirt`, with its configuration. */
export async function launchDaemon(directory: string): Promise<ChildProcess> {
  await mkdir(dirname(startLogOf(directory)), { recursive: true });
  const log = await open(startLogOf(directory), 'a');
  const unshare = [
    '--mount',
    '--propagation',
    'slave',
    '/bin/sh',
    '-eu',
    '-c',
    startScript,
    'holdfast',
    directory,
  ];
  const child = spawn('unshare', unshare, {
    // Own session: the supervisor's death, or its terminal's, is not the daemon's.
    detached: true,
    cwd: '/',
    stdio: ['ignore', log.fd, log.fd],
    env: { PATH: path, LC_ALL: 'C', LIBVIRT_DRIVER_DIR: join(directory, 'drivers') },
  });
  child.once('error', () => {});
  child.unref();
  await log.close();
  return child;
}

/** What the launch and libvirtd print, apart from libvirtd's own log. */
export const startLogOf = (directory: string) => join(directory, 'log/start.log');

/** Takes away what a launch made on the host, if nobody uses it any more. */
export async function removeMountPoints(): Promise<void> {
  await promisify(execFile)('/bin/sh', ['-c', removeScript], { env: { PATH: path } });
}
