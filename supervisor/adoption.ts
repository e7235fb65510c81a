import { parseServiceConfig, type ServiceConfig } from './config/config.js';
import type { EventLog } from './events/event-log.js';
import type { Hypervisors } from './hypervisors.js';
import { findImage, type Image, imageAt } from './service/image.js';
import { ServiceNames } from './service/names.js';
import { orphaned } from './service/orphan.js';
import { Service } from './service/service.js';
import { type SavedService, ServiceFiles } from './service/state-file.js';

/**
 * Takes over the service that an earlier supervisor left, from its state file; it is watched over from then on, and `start`
 * makes it protected again. Throws `HF_SERVICE_ORPHANED`, or what else stands in the way; the service is then as it was.
 */
export async function adoptService(
  name: string,
  stateDir: string,
  hypervisors: Hypervisors,
  log: EventLog,
): Promise<{ config: ServiceConfig; service: Service }> {
  const files = new ServiceFiles(stateDir, name);
  const saved = files.load();
  if (!saved) throw orphaned(name, 'its state file is damaged');
  const { config: text, source } = saved;
  const config = parseServiceConfig(text, source);
  const { uri } = config.hypervisor;
  const image = await imageOf(saved, config);
  const hypervisor = await hypervisors.acquire(uri, image.kernel);
  try {
    const names = new ServiceNames(name);
    const given = { config: text, source, image: image.place };
    const service = await Service.adopt({ config, given, names, files, image, hypervisor, log }, saved);
    return { config, service };
  } catch (error) {
    await hypervisors.release(uri);
    throw error;
  }
}

/** The one that its guests run, which needs no build; only if that is gone, the one that the configuration names. */
async function imageOf(saved: SavedService, config: ServiceConfig): Promise<Image> {
  try {
    if (saved.image !== undefined) return imageAt(saved.image, config.source);
  } catch {
    // It has been removed: the guests that run have it open, those to come need another.
  }
  return findImage(config.source);
}
