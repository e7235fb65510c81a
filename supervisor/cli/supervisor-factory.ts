import type { Logger } from 'pino';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { SupervisorOperations } from '../api/types.js';
import type { EventLog } from '../events/event-log.js';
import type { ServiceSample } from '../metrics/sample.js';

export interface SupervisorOptions {
  stateDir: string;
  eventLog: EventLog;
  logger: Logger;
}

/** What the daemon runs: the operations, and an end that leaves guests and data path as they are (promise P5). */
export interface RunningSupervisor extends SupervisorOperations {
  /** What the services show now, for the metrics. Must not fail or wait for one of them. */
  samples(): ServiceSample[];
  shutdown(): Promise<void>;
}

export type SupervisorFactory = (options: SupervisorOptions) => Promise<RunningSupervisor>;

/** Loaded late: all other commands start without the hypervisor's libraries. */
export const createSupervisor: SupervisorFactory = async options => {
  await checkPrivileges();
  const { Supervisor } = await import('../supervisor.js');
  return Supervisor.create(options);
};

/** Before anything is touched: half of a service could be made without them, and then not be removed. */
async function checkPrivileges(): Promise<void> {
  const { proveCapabilities } = await import('../../hypervisor-shim/platform/proofs.js');
  await proveCapabilities().catch((error: Error) => {
    throw new HoldfastError(
      'HF_NOT_PERMITTED',
      `the supervisor may not do its work: ${error.message}`,
      'Start it as root, in a container with those capabilities; `holdfast doctor` shows what else is lacking.',
    );
  });
}
