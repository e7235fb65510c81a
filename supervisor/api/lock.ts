import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { HoldfastError } from '../../hypervisor-shim/errors.js';

/** A lock that is held, and the open file it is on. */
export interface Lock {
  fd: number;
  release: () => void;
}

/**
 * Takes an exclusive flock(2) on a file, which the kernel gives back when this process ends, however it ends. Undefined if
 * another open file holds it.
 *
 * Node has no flock; flock(1) locks the open file it inherits, and the lock stays with our descriptor of it.
 */
export function lockDescriptor(path: string): Lock | undefined {
  const fd = openSync(path, 'a', 0o600);
  const result = spawnSync('flock', ['--exclusive', '--nonblock', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
  });
  if (result.status === 0) {
    let held = true;
    const release = () => {
      // Once only: by the second time the number may be another file's.
      if (held) {
        held = false;
        closeSync(fd);
      }
    };
    return { fd, release };
  }
  closeSync(fd);
  if (result.error || result.status !== 1) {
    throw new HoldfastError(
      'HF_LOCK_FAILED',
      `cannot lock ${path}: ${result.error?.message ?? `flock ended with status ${result.status}`}`,
      'Install util-linux (the flock command) and keep that path on a local file system.',
    );
  }
  return undefined;
}

/** The function that releases the lock on that file, or undefined if another process holds it. */
export const lockFile = (path: string): (() => void) | undefined => lockDescriptor(path)?.release;
