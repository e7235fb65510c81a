import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExpectedBody } from './body-check.js';
import { repositoryRoot, run } from './run.js';

/** An appliance image and what its web server holds, by URL path. */
export interface Image {
  dir: string;
  /** The large files, `/files/NN.bin`, and small ones up to 128 KiB, `/small/NAME`. */
  files: Map<string, ExpectedBody>;
  small: Map<string, ExpectedBody>;
}

const WEB_ROOT = '/srv/www';
const SMALL_MAX = 128 << 10;
/** A first build downloads and unpacks Debian packages. */
const BUILD_MS = 20 * 60_000;

/**
 * Builds the image of the example appliance, or of another one, or takes it from the cache. `HOLDFAST_TEST_IMAGE` names a finished
 * one in place of the example's.
 */
export async function findImage(
  onProgress: (text: string) => void = () => {},
  appliance?: string,
): Promise<Image> {
  const given = process.env.HOLDFAST_TEST_IMAGE;
  if (given && appliance === undefined) return readImage(given);
  const build = join(repositoryRoot(), 'images/build');
  // the build fetches packages, by the proxy of this machine if it has one
  const { stdout } = await run([build, ...(appliance === undefined ? [] : [appliance])], {
    env: process.env,
    timeoutMs: BUILD_MS,
    onStderr: onProgress,
  });
  return readImage(stdout.trim().split('\n').at(-1)!);
}

export function readImage(dir: string): Image {
  const manifest = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')) as {
    files: (ExpectedBody & { path: string })[];
  };
  const under = (prefix: string, maxBytes: number) =>
    new Map(
      manifest.files
        .filter(file => file.path.startsWith(WEB_ROOT + prefix) && file.bytes <= maxBytes)
        .map(({ path, bytes, sha256 }) => [path.slice(WEB_ROOT.length), { bytes, sha256 }]),
    );
  const image = {
    dir,
    files: under('/files/', Number.POSITIVE_INFINITY),
    small: under('/small/', SMALL_MAX),
  };
  if (image.files.size === 0 || image.small.size === 0)
    throw new Error(`${dir}/manifest.json names no files below ${WEB_ROOT}/files and ${WEB_ROOT}/small`);
  return image;
}
