import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { ServicePhase, ServiceStatus } from '../api/types.js';
import { parseServiceConfig, type ServiceConfig } from '../config/config.js';
import type { ServiceFiles } from './state-file.js';

const NO_CONNECTIONS = { tracked: 0, held: 0, spliced: 0, closed: 0, unprotected: 0 };
const NO_LOG = { segmentsFree: 0, segmentsTotal: 0, usedBytes: 0, full: false };

/** Status of a service that could not be taken over: it may well serve, but nobody watches over it. */
export function orphanStatus(files: ServiceFiles, why: Error): ServiceStatus {
  const name = files.service;
  const saved = files.load();
  const config = configOf(saved);
  const own = !(why instanceof HoldfastError && why.code === 'HF_SERVICE_ELSEWHERE');
  const reason = own ? `${why.message}; remove it with \`holdfast down ${name}\`` : why.message;
  return { ...limboStatus({ name, ...config }, 'failed', reason), epoch: saved?.epoch ?? 0 };
}

/** Status of a service of which there is nothing to ask: not yet, or no more. */
export function limboStatus(
  { name, address, ports, storage }: Pick<ServiceConfig, 'name' | 'address' | 'ports' | 'storage'>,
  phase: ServicePhase,
  reason: string,
): ServiceStatus {
  return {
    name,
    phase,
    reason,
    address,
    ports,
    stoppedServices: [],
    accel: 'tcg',
    epoch: 0,
    connections: { ...NO_CONNECTIONS },
    recoveries: 0,
    recoveriesByCause: {},
    storage: { mode: storage.mode, holder: undefined, volatileBytes: 0 },
    guests: [],
    log: { ...NO_LOG },
  };
}

export function orphaned(name: string, why: string): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_ORPHANED',
    `${name} was left behind by a supervisor that has ended, and cannot be taken over: ${why}`,
    `Remove what is left with \`holdfast down ${name}\`, then protect it again.`,
  );
}

/** An older supervisor's configuration may be none to this one. */
function configOf(
  saved: { config: string; source: string } | undefined,
): Pick<ServiceConfig, 'address' | 'ports' | 'storage'> {
  try {
    if (saved) {
      const { address, ports, storage } = parseServiceConfig(saved.config, saved.source);
      return { address, ports, storage };
    }
  } catch {
    // the reason says what is wrong with it
  }
  return { address: '', ports: [], storage: { mode: 'none' } };
}
