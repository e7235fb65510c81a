import { clientEndpoint, hostPort } from '../../hypervisor-shim/datapath/addresses.js';
import { CONST, type Flow, STATE, UNLOGGED } from '../../hypervisor-shim/datapath/layout.generated.js';
import { native } from '../../hypervisor-shim/native/native.js';
import type { ConnectionStatus, ServiceStatus } from '../api/types.js';
import type { ServiceSample } from '../metrics/sample.js';
import type { Protection } from './protection.js';

/** What is asked of a service to name a flow's place in it. */
export type FlowOwners = Pick<Protection, 'config' | 'path'> & {
  guestIn(slot: number): { name: string } | undefined;
};

/** What the flow table says of one connection. */
export function connectionStatus(p: FlowOwners, flow: Flow): ConnectionStatus {
  return {
    service: p.config.name,
    client: clientEndpoint(flow),
    port: hostPort(flow.key.lport),
    state: stateName(p, flow),
    guest: p.guestIn(flow.owner)?.name ?? '',
    epoch: flow.epoch,
    inputBytes: Number(flow.in_end),
    outputSent: Number(flow.out_sent),
    outputAcked: Number(flow.out_acked),
    failovers: flow.failovers,
    unprotected: isUnprotected(flow) ? whyUnlogged(flow) : undefined,
  };
}

/** Counts by state now; `closed` counts all that ever closed. */
export function countFlows(p: Protection): Pick<ServiceStatus, 'connections' | 'log'> {
  const connections = { tracked: 0, held: 0, spliced: 0, closed: p.path.stats().CLOSED, unprotected: 0 };
  for (const { flow } of p.path.flows()) {
    const state = stateName(p, flow);
    if (isUnprotected(flow)) connections.unprotected++;
    if (state === 'tracked' || state === 'spliced') connections[state]++;
    else if (state === 'held' || state === 'replaying') connections.held++;
  }
  const { small_free, large_free } = p.path.control;
  const segmentsTotal = native.mapInfo(p.path.fd('segments')).maxEntries;
  const { onFull } = p.config.log;
  const usedBytes = countSegments(p).reduce((sum, { bytes, free, total }) => sum + (total - free) * bytes, 0);
  const state = p.spiller?.state;
  const spill = state && {
    directory: state.directory,
    fileBytes: state.bytes,
    limitBytes: state.limitBytes,
    movedBytes: state.moved,
    full: state.full,
    error: state.error,
  };
  return {
    connections,
    log: { segmentsFree: small_free + large_free, segmentsTotal, usedBytes, onFull, full: p.logFull, spill },
  };
}

/** What of each class of the log's segments is free. */
export function countSegments({ path }: Pick<Protection, 'path'>): ServiceSample['segments'] {
  const { small_free, large_free } = path.control;
  const total = (map: string) => native.mapInfo(path.fd(map)).maxEntries;
  return [
    { size: 'small', bytes: CONST.SMALL_BYTES, free: small_free, total: total('free_small') },
    { size: 'large', bytes: CONST.LARGE_BYTES, free: large_free, total: total('free_large') },
  ];
}

/** Free share of the log, 0 to 1; of its two kinds of segments the one that is nearer to its end. */
export function logRoom(p: Pick<Protection, 'path'>): number {
  return Math.min(...countSegments(p).map(({ free, total }) => free / total));
}

/** Why the log does not have it. */
export const whyUnlogged = (flow: Flow): string =>
  flow.unlogged === UNLOGGED.LOG_SHARE ? 'its share of the log is used up' : 'log full';

const isUnprotected = (flow: Flow): boolean => flow.unlogged !== 0 && flow.state !== STATE.CLOSED;

function stateName(p: FlowOwners, flow: Flow): string {
  if (flow.state === STATE.CLOSED) return 'closed';
  if (flow.state === STATE.DIVERGED) return 'diverged';
  if (!p.path.inCurrentEpoch(flow)) return 'held';
  return flow.state === STATE.TRACKED ? 'tracked' : flow.state === STATE.SPLICED ? 'spliced' : 'replaying';
}
