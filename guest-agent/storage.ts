/**
 * Where the service's lasting data is, as the host says, `holdfast.storage=MODE:DIRECTORY`: a disk that it plugs in when this machine
 * becomes the active one, or a directory of its own. Without that word it is nowhere, and there is nothing to do.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { tool } from './tool.js';
import { STORAGE_NAME } from './wire/control-page.js';
import { hostWord } from './words.js';

/** A suspended machine polls nothing, so only a takeover pays for it, ms. */
const POLL_MS = 5;
/** Pause after a mount that failed, ms. */
const RETRY_MS = 1000;
const FSCK = '/sbin/fsck.ext4';
/** fsck's exit status: errors were left uncorrected, or it could not work (fsck(8)). */
const FSCK_FAILED = ~3;

const execute = promisify(execFile);

/**
 * Resolves when the storage is mounted: the services may start. `waiting` is called once before if it is the host's turn to act. What
 * goes wrong is told on the console, and tried again.
 */
export async function mountStorage(waiting: () => void): Promise<void> {
  const { mode, directory } = declared();
  // An earlier agent may have mounted it: the services go on.
  if (directory === undefined || isMounted(directory)) return;
  mkdirSync(directory, { recursive: true });
  const mount = mode === 'shared' ? mountShared : mountDisk;
  if (mode !== 'shared') waiting();
  for (let told = ''; ; await sleep(RETRY_MS)) {
    try {
      await mount(directory);
      console.log(`holdfast: ${directory} is mounted (${mode})`);
      return;
    } catch (error) {
      const { message, stdout } = error as Error & { stdout?: string };
      const text = [message.trim(), stdout?.trim()].filter(Boolean).join('; ');
      if (text !== told) console.error(`holdfast: ${directory} can not be mounted: ${text}`);
      told = text;
    }
  }
}

/**
 * Where nothing lasts, writes back what boot and start have written, before the service counts as listening: what the disk grows by
 * later the host takes for the service's own writing.
 */
export async function settleDisk(): Promise<void> {
  if (declared().directory === undefined) await tool('sync').catch(() => {});
}

function declared(): { mode?: string | undefined; directory?: string | undefined } {
  const [, mode, directory] = /^([^:]+):(.+)$/.exec(hostWord('storage') ?? '') ?? [];
  return { mode, directory };
}

async function mountShared(directory: string): Promise<void> {
  await tool('modprobe', 'virtiofs');
  await tool('mount', '-t', 'virtiofs', '-o', 'nodev', STORAGE_NAME, directory);
}

/** Another machine was writing to it when it died: its journal is played back, and it is checked if it asks for that. */
async function mountDisk(directory: string): Promise<void> {
  const disk = await findDisk();
  await execute(FSCK, ['-p', disk]).catch(error => {
    if (typeof error.code !== 'number' || (error.code & FSCK_FAILED) !== 0) throw error;
  });
  await tool('mount', '-t', 'ext4', '-o', 'noatime,nodev', disk, directory);
}

async function findDisk(): Promise<string> {
  for (;;) {
    for (const name of readdirSync('/sys/block')) {
      const isData = read(`/sys/block/${name}/serial`).trim() === STORAGE_NAME;
      if (isData && existsSync(`/dev/${name}`)) return `/dev/${name}`;
    }
    await sleep(POLL_MS);
  }
}

function isMounted(directory: string): boolean {
  return read('/proc/mounts')
    .split('\n')
    .some(line => line.split(' ')[1] === directory);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
