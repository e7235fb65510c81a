import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Runs a program that Debian's essential packages lack: an appliance has busybox's, a Debian with systemd its own. */
export const tool = (name: string, ...args: string[]) =>
  existsSync('/run/systemd/system') ? execute(name, args) : execute('busybox', [name, ...args]);
