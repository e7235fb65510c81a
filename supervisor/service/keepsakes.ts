import { open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import { dumpSizeMiB } from '../config/schema.js';
import { makeRoom } from '../incidents/room.js';
import type { GuestVm } from './guest.js';
import type { Protection } from './protection.js';

/** A guest may fill its console; its end tells why it died. */
const CONSOLE_BYTES = 1 << 20;

/** Keeps the end of a failed guest's console in a file that outlives the guest and the service, and says where. */
export async function keepConsole(p: Protection, guest: GuestVm): Promise<void> {
  const file = place(p, guest, 'console', CONSOLE_BYTES);
  const source = await open(guest.serialLog, 'r');
  try {
    const { size } = await source.stat();
    const bytes = Buffer.alloc(Math.min(size, CONSOLE_BYTES));
    const { bytesRead } = await source.read(bytes, 0, bytes.length, size - bytes.length);
    await writeFile(file, bytes.subarray(0, bytesRead), { mode: 0o600 });
  } finally {
    await source.close();
  }
  p.say('guest.console', `the end of the console of ${guest.name} is in ${file}`, {
    guest: guest.name,
    file,
  });
}

/** The same with its memory, as an ELF core. What a failed try has written is removed. */
export async function dumpMemory(p: Protection, guest: GuestVm): Promise<void> {
  const file = place(p, guest, 'core', dumpSizeMiB(p.config.guest.memoryMiB) * 2 ** 20);
  try {
    await guest.dump(file);
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  }
  p.say('guest.dumped', `the memory of ${guest.name} is in ${file}`, { guest: guest.name, file });
}

/** Room is made before, so that the limit holds at any time. */
function place(p: Protection, guest: GuestVm, kind: 'console' | 'core', bytes: number): string {
  const { incidents } = p.files;
  const { keep, sizeMiB } = p.config.incidents;
  makeDirectories(incidents, 0o700);
  makeRoom(incidents, { keep, bytes: sizeMiB * 2 ** 20 }, { kind, bytes });
  return join(incidents, `${guest.name}-${Date.now()}.${kind}`);
}
