import { resolve } from 'node:path';
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

/** Folder of the daemon's state: the option, else `HOLDFAST_STATE`, else the default. */
export function stateDirectory(option?: string): string {
  return resolve(option ?? (process.env.HOLDFAST_STATE || '/var/lib/holdfast'));
}
