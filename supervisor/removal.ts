import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseServiceConfig } from './config/config.js';
import type { Hypervisors } from './hypervisors.js';
import { ServiceNames } from './service/names.js';
import { removeService } from './service/remove.js';
import { ServiceFiles } from './service/state-file.js';

/** Removes a service that nobody watches over: all that can be found of it, whatever its state file still says. */
export async function removeOrphan(name: string, stateDir: string, hypervisors: Hypervisors): Promise<void> {
  const files = new ServiceFiles(stateDir, name);
  const uri = uriOf(files);
  // Without a word of where its guests are, they are in the private libvirtd, if there is one.
  const known = uri !== undefined || existsSync(join(stateDir, 'libvirt'));
  const hypervisor = known ? await hypervisors.acquire(uri, undefined) : undefined;
  try {
    await removeService(new ServiceNames(name), files, hypervisor);
  } finally {
    if (hypervisor) await hypervisors.release(uri);
  }
}

/** The libvirt it was configured with; undefined for the private one, or if that cannot be known any more. */
function uriOf(files: ServiceFiles): string | undefined {
  try {
    const saved = files.load();
    return saved && parseServiceConfig(saved.config, saved.source).hypervisor.uri;
  } catch {
    return undefined;
  }
}
