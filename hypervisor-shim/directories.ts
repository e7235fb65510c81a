import { mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/**
 * Makes a directory and those above it that are missing, each tried once. Node 20's own (`recursive`) never returns where
 * mkdir(2) says ENOENT below a directory that exists, as it does in /proc and in /sys. Throws what mkdir(2) says.
 */
export function makeDirectories(path: string, mode = 0o777): void {
  const missing: string[] = [];
  for (let at = resolve(path); !statSync(at, { throwIfNoEntry: false }); at = dirname(at)) missing.push(at);
  for (const directory of missing.reverse()) make(directory, mode);
  // A file that is there already.
  if (missing.length === 0) make(resolve(path), mode);
}

function make(directory: string, mode: number): void {
  try {
    mkdirSync(directory, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST' || !statSync(directory).isDirectory()) throw error;
  }
}
