import { type Flow, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import type { ConnectionStatus, ServiceStatus } from '../api/types.js';
import type { Protection } from './protection.js';

/** What the flow table says of one connection. */
export function connectionStatus(p: Protection, flow: Flow): ConnectionStatus {
  const { key } = flow;
  return {
    service: p.config.name,
    client: `${[...key.bytes.subarray(12, 16)].join('.')}:${hostOrder(key.rport)}`,
    port: hostOrder(key.lport),
    state: stateName(p, flow),
    guest: p.guestIn(flow.owner)?.name ?? '',
    epoch: flow.epoch,
    inputBytes: Number(flow.in_end),
    outputSent: Number(flow.out_sent),
    outputAcked: Number(flow.out_acked),
    failovers: flow.failovers,
  };
}

/** Counts by state now; `closed` counts all that ever closed. */
export function countFlows(p: Protection): Pick<ServiceStatus, 'connections' | 'log'> {
  const connections = { tracked: 0, held: 0, spliced: 0, closed: p.path.stats().CLOSED };
  for (const { flow } of p.path.flows()) {
    const state = stateName(p, flow);
    if (state === 'tracked' || state === 'spliced') connections[state]++;
    else if (state === 'held' || state === 'replaying') connections.held++;
  }
  const { small_free, large_free } = p.path.control;
  const segmentsTotal = native.mapInfo(p.path.fd('segments')).maxEntries;
  return { connections, log: { segmentsFree: small_free + large_free, segmentsTotal } };
}

function stateName(p: Protection, flow: Flow): string {
  if (flow.state === STATE.CLOSED) return 'closed';
  if (flow.state === STATE.DIVERGED) return 'diverged';
  if (!p.path.inCurrentEpoch(flow)) return 'held';
  return flow.state === STATE.TRACKED ? 'tracked' : flow.state === STATE.SPLICED ? 'spliced' : 'replaying';
}

const hostOrder = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);
