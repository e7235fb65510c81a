import { execFile } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { services } from '../../guest-agent/wire/control-page.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { ServiceConfig } from '../config/config.js';

/** What guests are made of: a base disk, to which nothing is written, and how it is booted. */
export interface Image {
  /** Where it is, for the state file: the directory of an appliance, or the disk. */
  place: string;
  root: { path: string; format: 'qcow2' | 'raw' };
  /** Direct kernel boot, of an appliance (images/README.md); a disk of its own has a boot loader. */
  boot?: { kernel: string; initrd: string; cmdline: string };
  /** A kernel to try an accelerator with. */
  kernel: string | undefined;
  /** Where the guest's services listen, if that is known. */
  ports: number[] | undefined;
  /** In the order in which its agent counts them. Of those in a disk nothing is known: they have numbers, as many as an agent tells of. */
  services: { name: string; ports?: number[] }[];
}

const BUILDER = fileURLToPath(new URL('../../../images/build', import.meta.url));

/** The image that `source` names, built first if it names an appliance's YAML. Throws `HF_IMAGE_...` or `HF_SOURCE_...`. */
export async function findImage(source: ServiceConfig['source']): Promise<Image> {
  if (source.kind === 'disk') return readDisk(source.disk);
  if (source.kind === 'domain') {
    throw new HoldfastError(
      'HF_SOURCE_UNSUPPORTED',
      `source.domain is ${source.domain}: guests made of an existing domain are not yet supported`,
      'Give source.image or source.disk instead.',
    );
  }
  const isDirectory = statSync(source.image, { throwIfNoEntry: false })?.isDirectory();
  if (isDirectory === undefined) {
    throw new HoldfastError(
      'HF_IMAGE_MISSING',
      `source.image: there is no ${source.image}`,
      'Give the directory that `images/build` printed, or the YAML file of an appliance.',
    );
  }
  return readImage(isDirectory ? source.image : await build(source.image));
}

/** The image that guests were made of before, by its place; no build. Throws as `findImage`. */
export function imageAt(place: string, { kind }: ServiceConfig['source']): Image {
  return kind === 'disk' ? readDisk(place) : readImage(place);
}

/** Throws `HF_IMAGE_INVALID` unless it is a built image. */
export function readImage(directory: string): Image {
  try {
    const manifest = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as {
      cmdline: string;
      ports: number[];
      services: { name: string; ports: number[] }[];
    };
    const [kernel, initrd, root] = ['vmlinuz', 'initrd', 'root.qcow2'].map(name => join(directory, name));
    for (const path of [kernel!, initrd!, root!]) statSync(path);
    return {
      place: directory,
      root: { path: root!, format: 'qcow2' },
      boot: { kernel: kernel!, initrd: initrd!, cmdline: manifest.cmdline },
      kernel: kernel!,
      ports: manifest.ports,
      services: manifest.services,
    };
  } catch (cause) {
    throw new HoldfastError(
      'HF_IMAGE_INVALID',
      `source.image: ${directory} is no appliance image: ${(cause as Error).message}`,
      'Give the directory that `images/build` printed; remove it and build again if it is damaged.',
      { cause },
    );
  }
}

const QCOW2 = 'QFI\xfb';
const BOOT_SIGNATURE = { offset: 510, bytes: '\x55\xaa' };

/**
 * A disk that boots by itself. Its name tells the format, as for `storage.disk`: what a guest once wrote to it must never be taken
 * for the header of another format, which could name any file of the host's. Throws `HF_SOURCE_DISK`.
 */
function readDisk(path: string): Image {
  const bad = (what: string, remedy: string) =>
    new HoldfastError('HF_SOURCE_DISK', `source.disk: ${what}`, remedy);
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found) throw bad(`there is no ${path}`, 'Give the path of a disk image.');
  if (!found.isFile() && !found.isBlockDevice())
    throw bad(`${path} is neither a file nor a block device`, 'Give the path of a disk image.');
  const format = found.isFile() && path.endsWith('.qcow2') ? 'qcow2' : 'raw';
  const head = headOf(path);
  if (head.startsWith(QCOW2) !== (format === 'qcow2')) {
    const is = format === 'qcow2' ? 'no qcow2 image' : 'a qcow2 image';
    throw bad(`${path} is ${is}`, 'Name a disk of that format *.qcow2, and no other.');
  }
  if (format === 'raw' && !head.startsWith(BOOT_SIGNATURE.bytes, BOOT_SIGNATURE.offset))
    throw bad(`${path} has no boot record`, 'Install a boot loader for BIOS (grub-pc) into it.');
  const host = `/boot/vmlinuz-${release()}`;
  return {
    place: path,
    root: { path, format },
    kernel: existsSync(host) ? host : undefined,
    ports: undefined,
    services: Array.from({ length: services.count }, (_, index) => ({ name: `service ${index + 1}` })),
  };
}

function headOf(path: string): string {
  const bytes = Buffer.alloc(512);
  const fd = openSync(path, 'r');
  try {
    return bytes.toString('latin1', 0, readSync(fd, bytes));
  } finally {
    closeSync(fd);
  }
}

async function build(yaml: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(BUILDER, [yaml], { maxBuffer: 64 << 20 });
    return stdout.trim().split('\n').at(-1) ?? '';
  } catch (cause) {
    const said = (cause as { stderr?: string }).stderr?.trim() ?? String(cause);
    // The builder's own last word, if it had one: it names what could not be fetched or found, and what to do.
    const [, why, remedy] = /^images: HF_\w+: ([\s\S]*)\n {2}remedy: (.*)$/m.exec(said) ?? [];
    throw new HoldfastError(
      'HF_IMAGE_BUILD',
      `building ${yaml} failed: ${why ?? said.split('\n').slice(-5).join('\n')}`,
      remedy ?? `Run \`images/build ${yaml}\` to see all of it.`,
      { cause },
    );
  }
}
