import { execFile } from 'node:child_process';
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { DataDisk } from '../../hypervisor-shim/hypervisor.js';
import type { ServiceConfig } from '../config/config.js';

type Storage = ServiceConfig['storage'];

/** Where ext4 keeps its magic number, 0xef53, and its size in bytes. */
const MAGIC = { offset: 1080, bytes: 2, value: 0xef53 };

/**
 * The disk of `storage: handed-over`. Its name tells the format: what a guest has written to it must never be taken for
 * the header of another format, which could name any file of the host's.
 */
export function dataDisk(path: string): DataDisk {
  const kind = statSync(path).isBlockDevice() ? 'block' : 'file';
  return { path, kind, format: kind === 'file' && path.endsWith('.qcow2') ? 'qcow2' : 'raw' };
}

/** Throws `HF_STORAGE_DISK` or `HF_STORAGE_DIRECTORY` for what guests could not use. */
export async function checkStorage(storage: Storage): Promise<void> {
  if (storage.mode === 'shared') checkDirectory(storage.directory);
  if (storage.mode === 'handed-over') await checkDisk(storage.disk);
}

function checkDirectory(path: string): void {
  const found = look(path);
  if (found?.isDirectory()) return;
  throw new HoldfastError(
    'HF_STORAGE_DIRECTORY',
    `storage.directory: ${found ? `${path} is no directory` : `there is no ${path}`}`,
    'Make the directory, or correct the path.',
  );
}

async function checkDisk(path: string): Promise<void> {
  const make = 'Make one (`truncate -s 10G DISK && mkfs.ext4 DISK` for a raw file), or correct the path.';
  const found = look(path);
  if (!found) throw bad(`there is no ${path}`, make);
  if (!found.isFile() && !found.isBlockDevice())
    throw bad(`${path} is neither a file nor a block device`, make);
  const { format, kind } = dataDisk(path);
  if (kind === 'block' ? isBusy(path) : backsLoop(found)) {
    throw bad(`${path} is in use on this host`, 'Unmount it: only one machine may ever have it.');
  }
  try {
    // Opens it for writing, as a guest will: takes the lock that each QEMU takes, which `qemu-img info` does not.
    await promisify(execFile)('qemu-io', ['-f', format, '-c', 'quit', path]);
  } catch (cause) {
    const said = (cause as { stderr?: string }).stderr?.trim() ?? String(cause);
    const inUse = said.includes('lock');
    throw bad(
      inUse ? `${path} is in use by another virtual machine` : `${path} is no ${format} image: ${said}`,
      inUse ? 'Stop that machine, or give another disk.' : make,
    );
  }
  if (format === 'raw' && !hasExt4(path)) throw bad(`${path} holds no ext4 file system`, make);
}

const bad = (what: string, remedy: string) =>
  new HoldfastError('HF_STORAGE_DISK', `storage.disk: ${what}`, remedy);

const look = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false });

/** A device that is mounted, or part of something that is, cannot be opened exclusively. */
function isBusy(device: string): boolean {
  try {
    closeSync(openSync(device, constants.O_RDONLY | constants.O_EXCL));
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EBUSY';
  }
}

/** Whether a loop device stands on the file: mounted on the host, as a rule. */
function backsLoop(file: Stats): boolean {
  return readdirSync('/sys/block').some(name => {
    try {
      const backing = statSync(readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim());
      return backing.dev === file.dev && backing.ino === file.ino;
    } catch {
      return false; // no loop device, or one without a file
    }
  });
}

function hasExt4(path: string): boolean {
  const bytes = Buffer.alloc(MAGIC.bytes);
  const fd = openSync(path, 'r');
  try {
    return (
      readSync(fd, bytes, 0, MAGIC.bytes, MAGIC.offset) === MAGIC.bytes &&
      bytes.readUInt16LE() === MAGIC.value
    );
  } finally {
    closeSync(fd);
  }
}
