import { readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import type { Hypervisor } from '../../hypervisor-shim/hypervisor.js';
import { removeReplayNamespace } from '../../hypervisor-shim/replay/namespace.js';
import { PIN_ROOT, type ServiceNames, SHM } from './names.js';
import { removeNetwork } from './network.js';
import { removeSpilled } from './spill.js';
import type { ServiceFiles } from './state-file.js';

/**
 * Removes all that there is of a service, found by name: works after a half-made start, a second time, and for what a dead
 * supervisor left. Every step is tried; throws the first error at the end.
 */
export async function removeService(
  names: ServiceNames,
  files: ServiceFiles,
  hypervisor: Hypervisor | undefined,
): Promise<void> {
  const errors: unknown[] = [];
  const steps: (() => void | Promise<void>)[] = [
    async () => {
      if (hypervisor) await removeGuests(names, hypervisor);
    },
    () => removeReplayNamespace(names.replayNamespace, names.replayDevice),
    () => removeNetwork(names),
    () => removePins(names),
    () => removePages(names),
    () => removeSpilled(files),
    () => files.remove(),
  ];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

async function removeGuests(names: ServiceNames, hypervisor: Hypervisor): Promise<void> {
  const guests = (await hypervisor.list()).filter(name => names.isGuest(name));
  await Promise.all(
    guests.map(async name => {
      const guest = await hypervisor.lookup(name);
      await guest?.destroy();
      await guest?.undefine();
    }),
  );
}

function removePins(names: ServiceNames): void {
  DataPath.remove(names.pins);
  try {
    rmdirSync(PIN_ROOT);
  } catch {
    // other services have theirs in it
  }
}

function removePages(names: ServiceNames): void {
  for (const file of readdirSync(SHM)) {
    if (names.isPage(file)) rmSync(join(SHM, file), { force: true });
  }
}
