import type { ServiceStatus } from '../api/types.js';
import { parseServiceConfig } from '../config/config.js';
import type { ServiceFiles } from './state-file.js';

/** Status of a service that a dead supervisor left: it may well serve, but nobody watches over it. */
export function orphanStatus(files: ServiceFiles): ServiceStatus | undefined {
  const saved = files.load();
  if (!saved) return undefined;
  const { address, ports } = parseServiceConfig(saved.config, saved.source);
  return {
    name: saved.name,
    phase: 'failed',
    reason: `left behind by a supervisor that has ended; remove it with \`holdfast down ${saved.name}\``,
    address,
    ports,
    accel: 'tcg',
    epoch: saved.epoch,
    connections: { tracked: 0, held: 0, spliced: 0, closed: 0 },
    recoveries: 0,
    guests: [],
    log: { segmentsFree: 0, segmentsTotal: 0 },
  };
}
