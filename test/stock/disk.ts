/**
 * A disk as clouds have them: Debian 12 with its cloud kernel, systemd, networkd that asks for DHCP, GRUB in a partitioned disk; and
 * in it, installed as the README says, the guest agent's package, nginx as Debian ships it, and an upload sink. Cached in two steps:
 * Debian, which takes the longest, does not depend on what is ours.
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { run } from '../../images/commands.js';
import { writeKnownFiles } from '../../images/content.js';
import { aptSources } from '../../images/inputs.js';
import { buildPackage } from '../../images/package.js';
import { installDebian } from '../../images/root.js';
import { type Image, readImage } from '../lib/image.js';
import { repositoryRoot } from '../lib/run.js';
import { writeBootSectors } from './boot-sectors.js';

const PACKAGES = [
  ...['linux-image-cloud-amd64', 'grub-pc-bin', 'systemd-sysv', 'udev', 'dbus', 'kmod', 'iproute2'],
  ...['nginx-light', 'busybox-static', 'libstdc++6', 'libbpf1'],
];
/** The first partition, where every tool puts it. */
const PARTITION_AT = 1 << 20;
const MIB = 1 << 20;
const CONTENT = {
  seed: 'holdfast',
  sets: [
    { path: '/srv/www/files/%02d.bin', bytes: 32 * MIB, count: 4 },
    ...[1, 10, 100].map(k => ({ path: `/srv/www/small/${k}k`, bytes: k << 10, count: 1 })),
  ],
};

const GRUB_CFG = `linux /vmlinuz root=/dev/vda1 ro console=tty0 console=ttyS0,115200 quiet
initrd /initrd.img
boot
`;
/** What a cloud's default is: every NIC asks for DHCP. */
const DHCP = '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n';
/** systemd would start it again by itself; what follows its end is the host's word all the same. */
const SINK = `[Service]
ExecStart=/usr/local/bin/upload-sink 8080 /srv/data
Restart=always
[Install]
WantedBy=multi-user.target
`;
/** A root shell for whoever connects: for what the tests do inside. */
const SHELL = `[Service]
ExecStart=/usr/bin/busybox sh -c 'while :; do busybox nc -l -p 9090 -e /bin/sh; done'
[Install]
WantedBy=multi-user.target
`;
/** Watched as the others are, and served to nobody: it can be stopped. */
const IDLE = `[Service]
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
`;
const SERVICES = [
  { name: 'nginx', unit: 'nginx.service', ports: [80] },
  { name: 'upload-sink', unit: 'upload-sink.service', ports: [8080] },
  { name: 'idle', unit: 'idle.service', ports: [] },
];

/** The disk, `disk.qcow2` in the directory of what it serves; built if it is not in the cache. */
export async function findStockDisk(): Promise<{ image: Image; disk: string }> {
  const cache = join(process.env.HOLDFAST_CACHE ?? '/var/cache/holdfast', 'stock');
  mkdirSync(cache, { recursive: true });
  const temp = join(cache, `.${process.pid}`);
  try {
    mkdirSync(temp, { mode: 0o755 });
    const debian = await findDebian(cache, temp);
    const deb = join(temp, 'holdfast-guest.deb');
    await buildPackage(repositoryRoot(), deb);
    const place = join(cache, await hashOf(debian, deb));
    if (!existsSync(place)) {
      await build(debian, deb, temp);
      renameSync(join(temp, 'image'), place);
    }
    return { image: readImage(place), disk: join(place, 'disk.qcow2') };
  } finally {
    rmSync(temp, { recursive: true, force: true });
  }
}

async function findDebian(cache: string, temp: string): Promise<string> {
  const sources = aptSources();
  const hash = createHash('sha256').update(JSON.stringify(PACKAGES));
  for (const file of sources) hash.update(readFileSync(file));
  const tar = join(cache, `debian-${hash.digest('hex').slice(0, 24)}.tar`);
  if (!existsSync(tar)) {
    await installDebian(sources, PACKAGES, ['--variant=minbase'], join(temp, 'debian.tar'), temp);
    renameSync(join(temp, 'debian.tar'), tar);
  }
  return tar;
}

/** Of what the package installs, not of the package, which has the time of its making in it; and of this builder. */
async function hashOf(debian: string, deb: string): Promise<string> {
  const hash = createHash('sha256').update(debian);
  hash.update(await run('sh', ['-ec', `dpkg-deb --fsys-tarfile '${deb}' | tar x --to-command=sha256sum`]));
  hash.update(await run('dpkg-deb', ['--info', deb, 'postinst']));
  const here = join(repositoryRoot(), 'build/test/stock');
  for (const name of readdirSync(here).sort()) {
    if (name.endsWith('.js') && !name.includes('.test.')) hash.update(readFileSync(join(here, name)));
  }
  for (const file of ['images/etc/nginx.conf', ...SINK_SOURCES])
    hash.update(readFileSync(join(repositoryRoot(), file)));
  return hash.digest('hex').slice(0, 24);
}

const SINK_SOURCES = ['upload-sink.c', 'http.h', 'sha256.h', 'store.h'].map(name => `images/sink/${name}`);

async function build(debian: string, deb: string, temp: string): Promise<void> {
  const root = join(temp, 'root');
  const write = (path: string, text: string | Buffer) => writeFileSync(join(root, path), text);
  const chroot = (...argv: string[]) =>
    run('unshare', ['--mount', '--pid', '--fork', '--kill-child', 'chroot', root, ...argv]);
  mkdirSync(root);
  await run('tar', ['xpf', debian, '-C', root]);

  write('root/holdfast-guest.deb', readFileSync(deb));
  await chroot('dpkg', '--install', '/root/holdfast-guest.deb');
  rmSync(join(root, 'root/holdfast-guest.deb'));
  write('etc/holdfast/services.json', JSON.stringify(SERVICES));

  write('etc/fstab', '/dev/vda1 / ext4 defaults,errors=remount-ro 0 1\n');
  write('etc/hostname', 'debian\n');
  write('etc/machine-id', '');
  write('etc/systemd/network/90-dhcp.network', DHCP);
  write('etc/nginx/nginx.conf', readFileSync(join(repositoryRoot(), 'images/etc/nginx.conf')));
  write('etc/systemd/system/upload-sink.service', SINK);
  write('etc/systemd/system/shell.service', SHELL);
  write('etc/systemd/system/idle.service', IDLE);
  const sink = join(repositoryRoot(), SINK_SOURCES[0]!);
  await run('gcc', ['-O2', '-o', join(root, 'usr/local/bin/upload-sink'), sink]);
  mkdirSync(join(root, 'srv/data'));
  const units = ['systemd-networkd', 'systemd-networkd-wait-online', 'nginx', 'upload-sink', 'shell', 'idle'];
  await chroot('systemctl', '--quiet', 'enable', ...units);
  const files = writeKnownFiles(root, CONTENT);

  mkdirSync(join(root, 'boot/grub'), { recursive: true });
  write('boot/grub/grub.cfg', GRUB_CFG);
  const modules = ['biosdisk', 'part_msdos', 'ext2', 'normal', 'linux'];
  const prefix = '(hd0,msdos1)/boot/grub';
  await chroot('grub-mkimage', '-O', 'i386-pc', '-o', '/core.img', '-p', prefix, ...modules);
  const boot = readFileSync(join(root, 'usr/lib/grub/i386-pc/boot.img'));
  const core = readFileSync(join(root, 'core.img'));
  rmSync(join(root, 'core.img'));

  const raw = join(temp, 'disk.raw');
  const used = Number((await run('du', ['-sm', '--apparent-size', root])).split('\t')[0]);
  const partitionMiB = Math.ceil(used * 1.15) + 256;
  // What GRUB 2.06 cannot read is off, as in Debian's own mke2fs.conf.
  const features = '^metadata_csum_seed,^orphan_file';
  const ext4 = ['-q', '-F', '-O', features, '-E', `lazy_itable_init=0,offset=${PARTITION_AT}`, '-d', root];
  await run('mkfs.ext4', [...ext4, raw, `${partitionMiB}M`]);
  writeBootSectors(raw, { boot, core, partition: { at: PARTITION_AT, bytes: partitionMiB * MIB } });
  mkdirSync(join(temp, 'image'));
  await run('qemu-img', ['convert', '-O', 'qcow2', raw, join(temp, 'image/disk.qcow2')]);
  const bytes = statSync(join(temp, 'image/disk.qcow2')).size;
  writeFileSync(join(temp, 'image/manifest.json'), JSON.stringify({ bytes, files }));
}
