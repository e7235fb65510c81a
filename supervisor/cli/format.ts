import type { ConnectionStatus, HoldfastEvent, ServiceStatus } from '../api/types.js';
import { table } from './table.js';

/** Less is a boot's, not a service's. */
const VOLATILE_BYTES = 1 << 20;

/** Services, the reasons of those that are not protected, and the guests of all. */
export function formatStatus(services: readonly ServiceStatus[]): string {
  if (services.length === 0) {
    return 'no services; start one with `holdfast protect CONFIG`';
  }
  const overview = table(services, [
    { title: 'SERVICE', cell: s => s.name },
    { title: 'PHASE', cell: s => s.phase },
    { title: 'ADDRESS', cell: s => s.address },
    { title: 'PORTS', cell: s => s.ports.join(',') },
    { title: 'ACCEL', cell: s => s.accel },
    { title: 'EPOCH', right: true, cell: s => s.epoch },
    { title: 'TRACKED', right: true, cell: s => s.connections.tracked },
    { title: 'HELD', right: true, cell: s => s.connections.held },
    { title: 'SPLICED', right: true, cell: s => s.connections.spliced },
    { title: 'CLOSED', right: true, cell: s => s.connections.closed },
    { title: 'UNPROTECTED', right: true, cell: s => s.connections.unprotected },
    { title: 'RECOVERIES', right: true, cell: s => s.recoveries },
    { title: 'LOG FREE', right: true, cell: s => freeShare(s.log) },
  ]);
  const reasons = services.filter(s => s.reason !== undefined).map(s => `${s.name}: ${s.reason}`);
  const stopped = services.flatMap(({ name, stoppedServices }) =>
    stoppedServices.map(service => `${name}: ${service} was stopped on purpose, inside the active guest`),
  );
  const pasts = services.flatMap(past);
  const volatile = services.flatMap(({ name, storage: { volatileBytes } }) =>
    volatileBytes < VOLATILE_BYTES
      ? []
      : `${name}: ${(volatileBytes / (1 << 20)).toFixed(1)} MiB were written to a disk that dies with its guest (storage: none)`,
  );
  const guests = table(
    services.flatMap(service => service.guests.map(guest => ({ service: service.name, ...guest }))),
    [
      { title: 'GUEST', cell: g => g.name },
      { title: 'SERVICE', cell: g => g.service },
      { title: 'ROLE', cell: g => g.role },
      { title: 'STATE', cell: g => g.state },
      { title: 'PID', right: true, cell: g => g.pid },
      {
        title: 'MEMORY MIB',
        right: true,
        cell: g => g.residentBytes && Math.ceil(g.residentBytes / (1 << 20)),
      },
      { title: 'VCPU MS', right: true, cell: g => Math.round(g.vcpuMs) },
      {
        title: 'AT SUSPEND',
        right: true,
        cell: g => (g.vcpuMsAtSuspend !== undefined ? Math.round(g.vcpuMsAtSuspend) : undefined),
      },
      { title: 'BOOT', cell: g => g.bootId },
      { title: 'MANAGEMENT', cell: g => g.managementAddress },
      { title: 'CONSOLE', cell: g => g.serialLog },
    ],
  );
  return [overview, ...reasons, ...stopped, ...pasts, ...volatile, '', guests].join('\n');
}

/** `web: up 3 h; last fault guest-panic 5 min ago (web-a: kernel panic); recovered 5 min ago; 2 guest-panic, 1 guest-hang`. */
function past(service: ServiceStatus): string[] {
  const { name, startedAt, lastFault, lastRecoveryAt, recoveriesByCause } = service;
  if (startedAt === undefined) return [];
  const causes = Object.entries(recoveriesByCause).map(([cause, n]) => `${n} ${cause}`);
  const words = [
    `protected first ${ago(startedAt)}`,
    lastFault && `last fault ${ago(lastFault.at)}: ${lastFault.cause} (${oneLine(lastFault.detail)})`,
    lastRecoveryAt && `last recovery ended ${ago(lastRecoveryAt)}`,
    causes.length > 0 && `recoveries: ${causes.join(', ')}`,
  ];
  return [`${name}: ${words.filter(Boolean).join('; ')}`];
}

const UNITS = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
] as const;

/** How long ago a moment is, in its largest unit. */
function ago(at: number): string {
  const seconds = Math.max(0, (Date.now() - at) / 1000);
  const [size, unit] = UNITS.find(([size]) => seconds >= size) ?? ([1, 's'] as const);
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

export function formatConnections(connections: readonly ConnectionStatus[]): string {
  if (connections.length === 0) {
    return 'no connections';
  }
  return table(connections, [
    { title: 'SERVICE', cell: c => c.service },
    { title: 'CLIENT', cell: c => c.client },
    { title: 'PORT', right: true, cell: c => c.port },
    { title: 'STATE', cell: c => c.state },
    { title: 'GUEST', cell: c => c.guest },
    { title: 'EPOCH', right: true, cell: c => c.epoch },
    { title: 'INPUT', right: true, cell: c => c.inputBytes },
    { title: 'SENT', right: true, cell: c => c.outputSent },
    { title: 'ACKED', right: true, cell: c => c.outputAcked },
    { title: 'FAILOVERS', right: true, cell: c => c.failovers },
    { title: 'UNPROTECTED', cell: c => c.unprotected },
  ]);
}

/** `2026-05-04 10:11:12.345  #17  web  recovery.done  12 connections kept`, in local time. */
export function formatEvent(event: HoldfastEvent): string {
  return [
    localTime(event.at),
    `#${event.seq}`,
    event.service ?? '-',
    event.type,
    oneLine(event.message),
  ].join('  ');
}

/** `2026-05-04 10:11:12.345`. */
export function localTime(at: number): string {
  const local = new Date(at - new Date(at).getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 23).replace('T', ' ');
}

/** Messages may quote what a guest wrote: neither a line break nor a terminal sequence of it may pass. */
export function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]+/gu, ' ');
}

function freeShare(log: ServiceStatus['log']): string | undefined {
  if (log.segmentsTotal === 0) return undefined;
  const share = `${Math.floor((100 * log.segmentsFree) / log.segmentsTotal)}%`;
  const spilled = log.spill?.fileBytes ? `, ${Math.ceil(log.spill.fileBytes / (1 << 20))} MiB in files` : '';
  return log.full ? `${share}${spilled}, full (${log.onFull})` : `${share}${spilled}`;
}
