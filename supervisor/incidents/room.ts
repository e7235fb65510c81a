import { readdirSync, rmSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';

/** `keep`: files of a kind, told by their ending; `bytes`: of all together. */
export interface Limits {
  keep: number;
  bytes: number;
}

/** Removes the oldest files of a directory, as many as must go before one more may come that takes at most `bytes`. */
export function makeRoom(directory: string, limits: Limits, next: { kind: string; bytes: number }): void {
  const files = readdirSync(directory)
    .map(name => {
      const path = join(directory, name);
      const { mtimeMs, size, blocks } = statSync(path);
      // A dump has holes.
      return { path, kind: extname(name).slice(1), mtimeMs, bytes: Math.min(size, blocks * 512) };
    })
    .sort((a, b) => b.mtimeMs - a.mtimeMs);
  let total = next.bytes;
  const counts = new Map([[next.kind, 1]]);
  for (const { path, kind, bytes } of files) {
    const count = (counts.get(kind) ?? 0) + 1;
    const fits = count <= limits.keep && total + bytes <= limits.bytes;
    if (!fits) {
      rmSync(path, { force: true });
      continue;
    }
    counts.set(kind, count);
    total += bytes;
  }
}
