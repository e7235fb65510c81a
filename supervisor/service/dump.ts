import { join } from 'node:path';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import type { GuestVm } from './guest.js';
import type { Protection } from './protection.js';

/** Writes a guest's memory to a file that outlives the service, and says where. */
export async function dumpMemory(p: Protection, guest: GuestVm): Promise<void> {
  makeDirectories(p.files.dumps);
  const file = join(p.files.dumps, `${guest.name}-${Date.now()}.core`);
  await guest.dump(file);
  p.say('guest.dumped', `the memory of ${guest.name} is in ${file}`, { guest: guest.name, file });
}
