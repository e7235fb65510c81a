import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ServiceConfig } from '../config/config.js';
import { type Image, imageAt, readImage } from '../service/image.js';

/** Where `images/build` keeps what it built. */
export const imageCache = (): string => join(process.env.HOLDFAST_CACHE ?? '/var/cache/holdfast', 'images');

/** Built images that are there already: the configuration's own, if it names one, else those of the cache, newest first. */
export function builtImages(config?: ServiceConfig): Image[] {
  const { source } = config ?? {};
  if (source?.kind === 'disk') return read(() => imageAt(source.disk, source));
  if (source?.kind === 'image' && statSync(source.image, { throwIfNoEntry: false })?.isDirectory()) {
    return read(() => readImage(source.image));
  }
  return cached().flatMap(directory => read(() => readImage(directory)));
}

function read(look: () => Image): Image[] {
  try {
    return [look()];
  } catch {
    return [];
  }
}

function cached(): string[] {
  try {
    const age = (directory: string) => statSync(directory).mtimeMs;
    const all = readdirSync(imageCache()).map(name => join(imageCache(), name));
    return all.sort((a, b) => age(b) - age(a));
  } catch {
    return [];
  }
}
