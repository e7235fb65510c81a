import { existsSync, readFileSync } from 'node:fs';
import { formatEndpoint } from '../../hypervisor-shim/datapath/addresses.js';
import type { DrillFault, GuestStatus, RecoveryReport } from '../../supervisor/api/types.js';
import type { ClientResult } from './client.js';
import { longestSilence, summarize } from './gaps.js';
import type { Trace } from './tcp-trace.js';

/** What one round left to judge. */
export interface Evidence {
  fault: DrillFault;
  clients: ClientResult[];
  trace: Trace;
  /** Of IPv4, and of IPv6. */
  clientAddresses: string[];
  report: RecoveryReport;
  /** Guests just before the fault and after the recovery. */
  primaryBefore: GuestStatus;
  backupBefore: GuestStatus;
  primaryAfter: GuestStatus;
  inFlight: number;
}

export interface RoundNumbers {
  connections: number;
  inFlightAtFault: number;
  kept: number;
  lost: number;
  corrupt: number;
  resets: number;
  reconnects: number;
  /** Connections that ended well and got new bytes after the backup had taken over. */
  servedByBackup: number;
  detectMs: number;
  /** From fault to last splice. */
  spliceMs: number | undefined;
  /** Longest any client waited for a packet after the fault; and by uploads and loops alone, which never wait by their own choice. */
  longestGapMs: number;
  longestActiveGapMs: number;
  /** The same (all clients) in the calm before the fault: what pacing alone does. */
  calmGapMs: number;
  retransmissionsToClient: number;
  retransmissionsToServer: number;
  oldBootId: string | undefined;
  newBootId: string | undefined;
  /** vCPU time of the backup when it was suspended, and when it was called. */
  backupVcpuMsAtSuspend: number | undefined;
  backupVcpuMsAtTakeover: number;
  failures: string[];
}

/** Clocks of two sources (guest statistics in ns and ms) may round differently. */
const VCPU_TOLERANCE_MS = 1;
const CALM_MS = 2000;

export function assess(evidence: Evidence): RoundNumbers {
  const { clients, trace, report, primaryBefore, backupBefore, primaryAfter } = evidence;
  const faultAt = report.faultAt ?? report.detectedAt;
  const endMs = Math.max(...trace.connections.map(connection => connection.lastMs));
  const traces = new Map(trace.connections.map(connection => [connection.clientPort, connection]));
  const ports = new Set(
    clients.filter(c => c.kind === 'upload' || c.kind === 'keep-alive').map(c => c.localPorts[0]),
  );
  const gap = (from: number, to: number, only?: Set<number | undefined>) =>
    trace.connections
      .filter(connection => only === undefined || only.has(connection.clientPort))
      .reduce((longest, connection) => Math.max(longest, longestSilence(connection, from, to)), 0);
  const servedByBackup = clients.filter(client => {
    const lastData = traces.get(client.localPorts[0] ?? -1)?.toClient.lastDataMs;
    return client.ok && lastData !== undefined && lastData > report.resumedAt;
  });
  const summary = summarize(trace, clients.length);
  const kept = clients.filter(client => client.ok).length;
  const numbers: RoundNumbers = {
    connections: clients.length,
    inFlightAtFault: evidence.inFlight,
    kept,
    lost: clients.length - kept,
    corrupt: clients.filter(client => client.corrupt).length,
    resets: summary.resets,
    reconnects: summary.reconnects,
    servedByBackup: servedByBackup.length,
    detectMs: round(report.detectedAt - faultAt),
    spliceMs: report.lastSpliceAt === undefined ? undefined : round(report.lastSpliceAt - faultAt),
    longestGapMs: round(gap(faultAt, endMs)),
    longestActiveGapMs: round(gap(faultAt, endMs, ports)),
    calmGapMs: round(gap(faultAt - CALM_MS, faultAt)),
    retransmissionsToClient: summary.retransmissionsToClient,
    retransmissionsToServer: summary.retransmissionsToServer,
    oldBootId: primaryBefore.bootId,
    newBootId: primaryAfter.bootId,
    backupVcpuMsAtSuspend: backupBefore.vcpuMsAtSuspend,
    backupVcpuMsAtTakeover: backupBefore.vcpuMs,
    failures: [],
  };
  numbers.failures = [
    ...clients
      .filter(client => !client.ok)
      .map(client => `${client.label} (port ${client.localPorts}): ${client.error}`),
    ...trace.resets.map(
      reset => `RST from ${reset.from} to ${reset.to}, ${round(reset.atMs - faultAt)} ms after the fault`,
    ),
    ...unless(summary.reconnects === 0, `${summary.reconnects} reconnects`),
    ...unless(summary.connections === clients.length, `${summary.connections} connections in the capture`),
    ...unless(
      servedByBackup.length === clients.length,
      `only ${servedByBackup.length} connections served by the backup`,
    ),
    ...judgeReport(evidence),
    ...judgeGuests(evidence),
  ];
  return numbers;
}

/** Promise P6: each client's connection has a verdict, and it is `kept`. */
function judgeReport({ report, clients, clientAddresses }: Evidence): string[] {
  const verdicts = new Map(report.verdicts.map(verdict => [verdict.client, verdict]));
  return [
    ...unless(report.lost === 0, `the report counts ${report.lost} lost`),
    ...clients.flatMap(client => {
      const [verdict] = clientAddresses.flatMap(
        address => verdicts.get(formatEndpoint(address, client.localPorts[0]!)) ?? [],
      );
      if (verdict === undefined) return [`${client.label} (port ${client.localPorts[0]}) has no verdict`];
      return unless(verdict.outcome === 'kept', `${client.label} was judged lost: ${verdict.reason}`);
    }),
  ];
}

/** The machine that answers now is the one that was suspended, which had not run meanwhile. */
function judgeGuests({ fault, primaryBefore, backupBefore, primaryAfter }: Evidence): string[] {
  const ran = Math.abs(backupBefore.vcpuMs - (backupBefore.vcpuMsAtSuspend ?? Number.NaN));
  const panicked = () =>
    existsSync(primaryBefore.serialLog) &&
    /Kernel panic/.test(readFileSync(primaryBefore.serialLog, 'latin1'));
  return [
    ...unless(
      primaryBefore.bootId !== undefined && primaryAfter.bootId !== undefined,
      'boot ids are not known',
    ),
    ...unless(primaryAfter.bootId !== primaryBefore.bootId, 'the primary still has its old boot id'),
    ...unless(
      primaryAfter.bootId === backupBefore.bootId,
      'the new primary is not the backup that was suspended',
    ),
    ...unless(ran <= VCPU_TOLERANCE_MS, `the suspended backup ran for ${ran} ms before it was called`),
    ...unless(
      fault !== 'guest-panic' || panicked(),
      `no "Kernel panic" in ${primaryBefore.serialLog} of the old primary`,
    ),
  ];
}

const unless = (holds: boolean, failure: string): string[] => (holds ? [] : [failure]);
const round = (ms: number): number => Math.round(ms * 10) / 10;
