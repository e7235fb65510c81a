import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES } from '../../guest-agent/wire/control-page.js';
import { IvshmemChannel } from '../../hypervisor-shim/guest-channel/ivshmem.js';
import { LibvirtHypervisor } from '../../hypervisor-shim/libvirt/libvirt-hypervisor.js';
import { native } from '../../hypervisor-shim/native/native.js';
import type { Image } from '../lib/image.js';
import { SERVICE_ADDRESS } from '../lib/lab.js';
import { run } from '../lib/run.js';
import { makeUploadBody } from '../lib/traffic.js';
import { BenchHost, GUEST_MAC, ip } from './bench-host.js';
import type { Guest } from './guest-netns.js';

/** The sink hashes what it gets, and an emulated one does so at some 30 MB/s. */
const UPLOAD_BYTES = 24 << 20;
const BOOT_MS = 120_000;

/** A guest of the appliance image under libvirt. */
export async function vmGuest(image: Image): Promise<Guest & { accel: string }> {
  const host = await BenchHost.create('benchvm', [80, 8080]);
  const name = host.lab.tag;
  const shm = `holdfast-${name}-a`;
  let hypervisor: LibvirtHypervisor | undefined;
  const dispose = async () => {
    await hypervisor?.stop().catch(() => {}); // what is left of it, the laboratory ends
    rmSync(`/dev/shm/${shm}`, { force: true });
    await host.dispose();
  };
  try {
    await ip('tuntap add dev tap mode tap vnet_hdr');
    await ip('link set tap txqueuelen 1000');
    await host.attach();
    const disk = join(host.lab.dir, 'root.qcow2');
    await run([
      'qemu-img',
      'create',
      '-q',
      '-f',
      'qcow2',
      '-F',
      'qcow2',
      '-b',
      `${image.dir}/root.qcow2`,
      disk,
    ]);
    new IvshmemChannel(native.mapFile(`/dev/shm/${shm}`, PAGE_BYTES)).reset();
    hypervisor = await LibvirtHypervisor.connect({ stateDir: join(host.lab.dir, 'state') });
    const { cmdline } = JSON.parse(readFileSync(join(image.dir, 'manifest.json'), 'utf8'));
    const machine = await hypervisor.define({
      name,
      memoryMiB: 384,
      vcpus: 1,
      boot: {
        kernel: join(image.dir, 'vmlinuz'),
        initrd: join(image.dir, 'initrd'),
        cmdline: `${cmdline} holdfast.service=${SERVICE_ADDRESS}/24 holdfast.name=${name}`,
      },
      disks: [{ path: disk, format: 'qcow2' }],
      nics: [{ tap: 'tap', mac: GUEST_MAC }],
      controlPage: { shm, bytes: PAGE_BYTES },
      serialLog: join(host.lab.dir, 'console.log'),
    });
    await machine.start();
    const base = `http://${SERVICE_ADDRESS}`;
    const target = {
      file: `${base}/files/00.bin`,
      small: `${base}/small/1k`,
      sink: `${base}:8080`,
      upload: makeUploadBody(host.lab, UPLOAD_BYTES),
    };
    await host.take('plain', target, BOOT_MS);
    return { host, target, accel: hypervisor.accel, dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
