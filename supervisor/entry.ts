import type { ServiceConfig } from './config/config.js';
import type { Service } from './service/service.js';

/** A service that exists, or is being made: then there is nothing yet to ask. */
export interface Entry {
  config: ServiceConfig;
  service: Service | undefined;
  /** Settles when the attempt to protect it is over. */
  started: Promise<unknown>;
  /** Set as soon as somebody wants it down. */
  cancelled: boolean;
  /** The removal under way, for everybody who wants it. */
  removal?: Promise<void>;
  /** The text it was configured with, if an earlier supervisor made it. */
  adopted?: string;
}
