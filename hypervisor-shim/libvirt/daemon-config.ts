import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Directory of the host over which a private one is mounted, by its name below `<stateDir>/libvirt`. */
export const mountedOver = {
  etc: '/etc/libvirt',
  lib: '/var/lib/libvirt',
  cache: '/var/cache/libvirt',
  log: '/var/log/libvirt',
  run: '/run/libvirt',
} as const;

const libvirtdConf = (hostUuid: string) => `
listen_tls = 0
listen_tcp = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
unix_sock_admin_perms = "0700"
host_uuid = "${hostUuid}"
log_outputs = "3:file:${mountedOver.log}/libvirtd.log"
`;

/*
 * security_driver, cgroup_controllers, namespaces: these need systemd, or policy files of the distribution's package.
 * stdio_handler: "logd" would need a second daemon. dynamic_ownership: QEMU runs as root, so nothing needs chown, and
 * base images may be read-only. hugetlbfs_mount: libvirt would make directories in the host's.
 */
const qemuConf = `
security_driver = "none"
security_default_confined = 0
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
hugetlbfs_mount = [ ]
`;

/** Makes the private directories and writes the configuration into them; `directory` is `<stateDir>/libvirt`. */
export async function writeDaemonConfig(directory: string): Promise<void> {
  for (const name of [...Object.keys(mountedOver), 'drivers']) {
    await mkdir(join(directory, name), { recursive: true, mode: 0o700 });
  }
  const hash = createHash('sha256').update(directory).digest('hex');
  const uuid = hash.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5');
  await writeFile(join(directory, 'etc/libvirtd.conf'), libvirtdConf(uuid));
  await writeFile(join(directory, 'etc/qemu.conf'), qemuConf);
}
