import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { ServiceStatus } from '../api/types.js';
import { parseServiceConfig, type ServiceConfig } from '../config/config.js';
import type { ServiceFiles } from './state-file.js';

/** Status of a service that could not be taken over: it may well serve, but nobody watches over it. */
export function orphanStatus(files: ServiceFiles, why: Error): ServiceStatus | undefined {
  const saved = files.load();
  if (!saved) return undefined;
  const { address, ports } = parseServiceConfig(saved.config, saved.source);
  return {
    name: saved.name,
    phase: 'failed',
    reason: `${why.message}; remove it with \`holdfast down ${saved.name}\``,
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

/** Status of a service of which there is nothing yet to ask. */
export async function startingStatus(config: ServiceConfig): Promise<ServiceStatus> {
  return {
    name: config.name,
    phase: 'starting',
    reason: 'image and hypervisor are made ready',
    address: config.address,
    ports: config.ports,
    accel: 'tcg',
    epoch: 0,
    connections: { tracked: 0, held: 0, spliced: 0, closed: 0 },
    recoveries: 0,
    guests: [],
    log: { segmentsFree: 0, segmentsTotal: 0 },
  };
}

export function orphaned(name: string, why: string): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_ORPHANED',
    `${name} was left behind by a supervisor that has ended, and cannot be taken over: ${why}`,
    `Remove what is left with \`holdfast down ${name}\`, then protect it again.`,
  );
}
