import { accessSync, constants, type Stats, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';

/** Longest path the kernel takes for a Unix socket (sockaddr_un, less the final zero). */
const MAX_SOCKET_PATH = 107;

/** Control socket: the option, else `HOLDFAST_SOCKET`, else the default. */
export function controlSocket(option?: string): string {
  const path = resolve(option ?? (process.env.HOLDFAST_SOCKET || '/run/holdfast/control.sock'));
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    throw new HoldfastError(
      'HF_SOCKET_PATH',
      `the control socket's path ${path} has ${Buffer.byteLength(path)} bytes, expected at most ${MAX_SOCKET_PATH}`,
      'Give a shorter path with --socket or HOLDFAST_SOCKET.',
    );
  }
  return path;
}

/** Throws `HF_SOCKET_PATH` if there is something else than a socket, which nobody may take for one, or remove. */
export function checkSocketPath(path: string, stat: Stats | undefined): void {
  if (!stat || stat.isSocket()) return;
  const kind = stat.isDirectory() ? 'a directory' : stat.isFile() ? 'a file' : 'something else';
  throw socketPath(path, `there is ${kind}, expected a socket or nothing`);
}

/** What a client may connect to. */
export function checkSocket(path: string): void {
  let stat: Stats | undefined;
  try {
    stat = statSync(path, { throwIfNoEntry: false });
  } catch (cause) {
    passUnprivileged(cause);
    throw socketPath(path, (cause as Error).message, cause);
  }
  checkSocketPath(path, stat);
}

/** Makes the directory of the control socket. Throws `HF_SOCKET_PATH`. */
export function makeSocketDirectory(path: string): void {
  try {
    makeDirectories(dirname(path), 0o700);
  } catch (cause) {
    passUnprivileged(cause);
    throw socketPath(path, `its directory cannot be made: ${(cause as Error).message}`, cause);
  }
}

/** What root could do is told as such. */
function passUnprivileged(error: unknown): void {
  const { code } = error as NodeJS.ErrnoException;
  if ((code === 'EACCES' || code === 'EPERM') && process.getuid?.() !== 0) throw error;
}

function socketPath(path: string, why: string, cause?: unknown): HoldfastError {
  const remedy =
    'Give the path of a socket, in a directory that can be written, with --socket or HOLDFAST_SOCKET.';
  return new HoldfastError('HF_SOCKET_PATH', `the control socket's path is ${path}: ${why}`, remedy, {
    cause,
  });
}

/** Makes the state directory. Throws `HF_STATE_DIR` if it cannot be made, or written. */
export function makeStateDirectory(path: string): void {
  try {
    makeDirectories(path);
    accessSync(path, constants.W_OK | constants.X_OK);
  } catch (cause) {
    passUnprivileged(cause);
    throw new HoldfastError(
      'HF_STATE_DIR',
      `the state directory ${path} cannot be used: ${(cause as Error).message}`,
      'Give a directory on a file system that can be written with --state-dir or HOLDFAST_STATE.',
      { cause },
    );
  }
}

/** Folder of the daemon's state: the option, else `HOLDFAST_STATE`, else the default. */
export function stateDirectory(option?: string): string {
  return resolve(option ?? (process.env.HOLDFAST_STATE || '/var/lib/holdfast'));
}
