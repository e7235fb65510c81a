import type { ServiceStatus } from './api/types.js';
import type { ServiceConfig } from './config/config.js';
import { limboStatus } from './service/orphan.js';
import type { Service } from './service/service.js';

/** A service that exists, or is being made: then there is nothing yet to ask. */
export interface Entry {
  config: ServiceConfig;
  service: Service | undefined;
  /** Resolves when the attempt to protect it is over: with what it failed with, if it did. */
  started: Promise<unknown>;
  /** Set as soon as somebody wants it down. */
  cancelled: boolean;
  /** The removal under way, for everybody who wants it. */
  removal?: Promise<void>;
}

export async function entryStatus({ config, service, removal }: Entry): Promise<ServiceStatus> {
  if (removal) return limboStatus(config, 'stopping', 'it is being removed');
  return service?.status() ?? limboStatus(config, 'starting', 'image and hypervisor are made ready');
}
