import { createCipheriv, createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, utimesSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Appliance } from './schema.js';

/** A file of the image whose content anyone can make again. */
export interface KnownFile {
  path: string;
  bytes: number;
  sha256: string;
}

const BLOCK = 1 << 20;
/** Same in every build, so that ETag and Last-Modified are. */
const MODIFIED = new Date('2020-01-01T00:00:00Z');

/** The bytes of `path`: AES-256-CTR of zeros from counter 0, the key being SHA-256 of `seed:path`. Blocks of 1 MiB. */
export function* knownContent(seed: string, path: string, bytes: number): Generator<Buffer> {
  const key = createHash('sha256').update(`${seed}:${path}`).digest();
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  const zeros = Buffer.alloc(BLOCK);
  for (let left = bytes; left > 0; left -= BLOCK)
    yield stream.update(zeros.subarray(0, Math.min(left, BLOCK)));
}

/** Paths and sizes that an appliance declares. */
export function knownFiles(content: NonNullable<Appliance['content']>): { path: string; bytes: number }[] {
  return content.sets.flatMap(({ path, bytes, count }) =>
    Array.from({ length: count }, (_, i) => ({ path: path.replace('%02d', `${i}`.padStart(2, '0')), bytes })),
  );
}

/** Writes the declared files below `root` and returns their digests. */
export function writeKnownFiles(root: string, content: NonNullable<Appliance['content']>): KnownFile[] {
  return knownFiles(content).map(({ path, bytes }) => {
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    const hash = createHash('sha256');
    const fd = openSync(file, 'w', 0o644);
    for (const block of knownContent(content.seed, path, bytes)) {
      hash.update(block);
      writeSync(fd, block);
    }
    closeSync(fd);
    utimesSync(file, MODIFIED, MODIFIED);
    return { path, bytes, sha256: hash.digest('hex') };
  });
}
