import type { Logger } from 'pino';
import type { SupervisorOperations } from '../api/types.js';
import type { EventLog } from '../events/event-log.js';

export interface SupervisorOptions {
  stateDir: string;
  eventLog: EventLog;
  logger: Logger;
}

/** What the daemon runs: the operations, and an end that leaves guests and data path as they are (promise P5). */
export interface RunningSupervisor extends SupervisorOperations {
  shutdown(): Promise<void>;
}

export type SupervisorFactory = (options: SupervisorOptions) => Promise<RunningSupervisor>;

/** Loaded late: all other commands start without the hypervisor's libraries. */
export const createSupervisor: SupervisorFactory = async options => {
  const { Supervisor } = await import('../supervisor.js');
  return Supervisor.create(options);
};
