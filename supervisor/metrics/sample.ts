import type { SpillState } from '../../hypervisor-shim/spill/spiller.js';
import type { ServicePhase, ServiceStatus } from '../api/types.js';

/** What a service shows at the moment of a scrape. Taken without asking the hypervisor, which may be slow to answer. */
export interface ServiceSample {
  name: string;
  phase: ServicePhase;
  epoch: number;
  startedAt: number | undefined;
  guests: Pick<ServiceStatus['guests'][number], 'role' | 'state'>[];
  connections: ServiceStatus['connections'];
  /** Records in the flow table. */
  maxConnections: number;
  recoveriesByCause: ServiceStatus['recoveriesByCause'];
  /** Counters of the data path since it was loaded, by their names in `enum hf_stat`. */
  counters: Record<string, number>;
  /** Segments of the log, by class. */
  segments: { size: 'small' | 'large'; bytes: number; free: number; total: number }[];
  /** Undefined: the log is not spilled. */
  spill?: SpillState | undefined;
  /** Since the active guest's heartbeat last moved; undefined while none is watched. */
  heartbeatAgeMs: number | undefined;
}
