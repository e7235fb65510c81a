import { execFile } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { ServiceConfig } from '../config/config.js';

/** A built appliance image, see images/README.md. */
export interface Image {
  directory: string;
  kernel: string;
  initrd: string;
  root: string;
  cmdline: string;
  ports: number[];
  /** In the order in which its agent counts them. */
  services: { name: string; ports: number[] }[];
}

const BUILDER = fileURLToPath(new URL('../../../images/build', import.meta.url));

/** The image that `source` names, built first if it names an appliance's YAML. Throws `HF_IMAGE_...`. */
export async function findImage(source: ServiceConfig['source']): Promise<Image> {
  if (source.kind === 'domain') {
    throw new HoldfastError(
      'HF_SOURCE_UNSUPPORTED',
      `source.domain is ${source.domain}: guests made of an existing domain are not yet supported`,
      'Give source.image instead.',
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

/** Throws `HF_IMAGE_INVALID` unless it is a built image. */
export function readImage(directory: string): Image {
  try {
    const manifest = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as {
      cmdline: string;
      ports: number[];
      services: Image['services'];
    };
    const file = (name: string) => join(directory, name);
    const image = { directory, kernel: file('vmlinuz'), initrd: file('initrd'), root: file('root.qcow2') };
    for (const path of [image.kernel, image.initrd, image.root]) statSync(path);
    const { cmdline, ports, services } = manifest;
    return { ...image, cmdline, ports, services };
  } catch (cause) {
    throw new HoldfastError(
      'HF_IMAGE_INVALID',
      `source.image: ${directory} is no appliance image: ${(cause as Error).message}`,
      'Give the directory that `images/build` printed; remove it and build again if it is damaged.',
      { cause },
    );
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
