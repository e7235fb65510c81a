import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { now } from '../clock.js';
import type { GuestVm } from './guest.js';
import { dumpMemory } from './keepsakes.js';
import type { Protection } from './protection.js';
import { dataDisk } from './storage-check.js';

const POLL_MS = 5;
/** What a guest may take to play back the journal, mount, and start its services, ms. A file system that asks for a check takes longer. */
const LISTEN_MS = 60_000;
/** How long a takeover waits for a dump of the old guest's memory, ms. */
const DUMP_MS = 20_000;

/** With `storage: handed-over` services start only when their guest has the disk. */
export const isHandedOver = (p: Protection): boolean => p.config.storage.mode === 'handed-over';

/**
 * Sees to it that `guest` alone can write to the service's storage: that it has the disk, and that its service, which waited for it,
 * listens; of a directory that is shared, that the guest before it has stopped. At once if that is so already.
 *
 * A paused QEMU keeps its disks open: QEMU 7.2 unplugs only with the guest's consent and refuses to close or downgrade the image
 * (measured, see ARCHITECTURE). So the guest that had it before is killed; and `p.holder`, which is saved before the disk is
 * plugged in, is always the only one that may have it.
 *
 * Rejects with `HF_STORAGE_...`, or when the guest or the service ends. Calling it again goes on where it was.
 */
export async function handOver(p: Protection, guest: GuestVm): Promise<void> {
  const { storage } = p.config;
  if (storage.mode === 'none') return;
  const began = now();
  const from = p.holder;
  if (from !== guest) {
    if (from) await (storage.mode === 'shared' ? from.halt() : end(p, from));
    p.holder = guest;
    p.save();
  }
  if (storage.mode === 'shared') return;
  const ended = now();
  if (!(await guest.hasDataDisk())) await attach(guest, storage.disk);
  const attached = now();
  await listening(p, guest);
  if (from === guest) return;
  const took = { endedMs: ended - began, attachedMs: attached - ended, listeningMs: now() - attached };
  p.say(
    'storage.moved',
    `${guest.name} has ${storage.disk}, and listens ${(now() - began).toFixed(0)} ms later`,
    {
      disk: storage.disk,
      from: from?.name,
      to: guest.name,
      ...took,
    },
  );
}

async function end(p: Protection, old: GuestVm): Promise<void> {
  if (p.config.recovery.former === 'dump' && old.state !== 'off') {
    const dump = dumpMemory(p, old).catch(error => {
      p.say('service.trouble', `the memory of ${old.name} was not dumped: ${(error as Error).message}`);
    });
    await Promise.race([dump, sleep(DUMP_MS, undefined, { ref: false })]);
  }
  await old.kill();
}

async function attach(guest: GuestVm, path: string): Promise<void> {
  try {
    await guest.attachDisk(dataDisk(path));
  } catch (cause) {
    throw new HoldfastError(
      'HF_STORAGE_DISK',
      `storage.disk: ${path} cannot be given to ${guest.name}: ${(cause as Error).message}`,
      'See that it exists and that nothing else uses it; it is tried again.',
      { cause },
    );
  }
}

async function listening(p: Protection, guest: GuestVm): Promise<void> {
  for (const deadline = now() + LISTEN_MS; ; await sleep(POLL_MS)) {
    const { application } = guest.report();
    if (application === 'listening') return p.path.setListening(guest.slot, true);
    // A fault of its own, which others see to.
    if (application === 'exited') return;
    p.stopped.throwIfAborted();
    const lost = guest.failure ?? (guest === p.primary ? p.fault?.detail : undefined);
    if (lost === undefined && now() < deadline) continue;
    throw new HoldfastError(
      'HF_STORAGE_MOUNT',
      `${guest.name} has the disk and ${lost ?? `does not listen after ${LISTEN_MS / 1000} s`}`,
      `Its console, ${guest.serialLog}, tells how far it came: a damaged file system waits for its repair.`,
    );
  }
}
