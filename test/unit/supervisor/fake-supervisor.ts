import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../../../hypervisor-shim/errors.js';
import type {
  BackupCommand,
  BackupOperation,
  BackupStatus,
  ConnectionStatus,
  DrillFault,
  Grant,
  Incident,
  IncidentDetail,
  MigrationReport,
  MigrationRequest,
  RecoveryReport,
  ServiceStatus,
} from '../../../supervisor/api/types.js';
import type { RunningSupervisor, SupervisorOptions } from '../../../supervisor/cli/supervisor-factory.js';
import { parseServiceConfig } from '../../../supervisor/config/config.js';
import type { EventLog } from '../../../supervisor/events/event-log.js';
import type { ServiceSample } from '../../../supervisor/metrics/sample.js';

/** Operations without machines: services are entries of a map, and a drill reports what it is told to. */
export class FakeSupervisor implements RunningSupervisor {
  readonly services = new Map<string, ServiceStatus>();
  readonly granted = new Set<BackupOperation>();
  shutdowns = 0;
  /** Connections the next drill loses. */
  lost = 0;

  constructor(private readonly log: EventLog) {}

  static async create(options: SupervisorOptions): Promise<FakeSupervisor> {
    if (process.env.FAKE_START_ERROR) {
      throw new HoldfastError('HF_LIBVIRT_UNREACHABLE', process.env.FAKE_START_ERROR, 'Start libvirtd.');
    }
    const fake = new FakeSupervisor(options.eventLog);
    fake.lost = Number(process.env.FAKE_LOST ?? 0);
    return fake;
  }

  async protect(text: string, source: string): Promise<ServiceStatus> {
    const config = parseServiceConfig(text, source);
    if (this.services.has(config.name)) {
      throw new HoldfastError('HF_SERVICE_EXISTS', `${config.name} is protected already`, 'Stop it first.');
    }
    this.log.append('service.starting', config.name, 'guests boot');
    await sleep(20);
    const service = sampleService(config.name, config.address, config.ports);
    service.phase = (process.env.FAKE_PHASE as ServiceStatus['phase'] | undefined) ?? service.phase;
    this.services.set(config.name, service);
    this.log.append('service.protected', config.name, 'primary active, backup suspended');
    return service;
  }

  async status(): Promise<ServiceStatus[]> {
    return [...this.services.values()];
  }

  async connections(service?: string): Promise<ConnectionStatus[]> {
    if (service === 'broken') {
      throw new TypeError('a defect');
    }
    return [...this.services.keys()]
      .filter(name => service === undefined || name === service)
      .map(name => sampleConnection(name));
  }

  async drill(name: string, fault: DrillFault): Promise<RecoveryReport> {
    if (!this.services.has(name)) {
      throw new HoldfastError('HF_SERVICE_UNKNOWN', `there is no service "${name}"`, 'Give one there is.');
    }
    this.log.append('recovery.done', name, 'recovered', { fault });
    return sampleReport(name, this.lost);
  }

  async migrate(service: string, { drainMs, policy }: MigrationRequest): Promise<MigrationReport> {
    const guests = { from: `${service}-a`, to: `${service}-b`, startedAt: 1000, deadlineAt: 1000 + drainMs };
    const counts = { moved: 3, replayed: 1, lost: this.lost };
    return { ...guests, policy, ...counts, outcome: 'done', endedAt: 2000 };
  }

  async abortMigration(service: string): Promise<MigrationReport> {
    throw new HoldfastError('HF_MIGRATE_NONE', `no migration of ${service} is under way`, 'Start one.');
  }

  async backup(service: string, { operation, address }: BackupCommand): Promise<BackupStatus> {
    if (operation === 'migrate') {
      throw new HoldfastError('HF_MIGRATE_STORAGE', 'its storage is handed over', 'Use a drill.');
    }
    const common = { service, phase: 'protected' as const, guest: `${service}-b`, vcpuMs: 700.2 };
    const addresses = { managementAddress: '192.168.77.3/24', furtherAddress: address };
    const awake = operation === 'wake';
    return { ...common, ...addresses, awake, state: awake ? 'ready' : 'suspended', residentBytes: 200 << 20 };
  }

  async grants(service?: string): Promise<Grant[]> {
    const names = [...this.services.keys()].filter(name => service === undefined || name === service);
    return names.map(name => ({ service: name, operations: [...this.granted] }));
  }

  async grant(service: string, operations: readonly BackupOperation[], granted: boolean): Promise<Grant> {
    for (const operation of operations) {
      if (granted) this.granted.add(operation);
      else this.granted.delete(operation);
    }
    return { service, operations: [...this.granted] };
  }

  async incidents(service?: string): Promise<Incident[]> {
    if (service !== undefined && !this.services.has(service)) return [];
    const { verdicts: _, ...incident } = sampleIncident(service ?? 'web');
    return [incident];
  }

  async incident(service: string, id: number): Promise<IncidentDetail> {
    if (id === 17) return sampleIncident(service);
    throw new HoldfastError('HF_INCIDENT_UNKNOWN', `${service} has no incident ${id}`, 'Give one there is.');
  }

  samples(): ServiceSample[] {
    return [...this.services.keys()].map(name => ({
      name,
      phase: 'protected',
      epoch: 1,
      startedAt: 1000,
      guests: [{ role: 'primary', state: 'active' }],
      connections: { tracked: 2, held: 0, spliced: 1, closed: 7, unprotected: 0 },
      maxConnections: 65_536,
      recoveriesByCause: { 'guest-hang': 3 },
      counters: { DROP_PARSE: 4, OPENED: 10 },
      segments: [
        { size: 'small', bytes: 2048, free: 70, total: 80 },
        { size: 'large', bytes: 16_384, free: 5, total: 20 },
      ],
      spill: {
        ...{ directory: '/spill', bytes: 5000, limitBytes: 9000, moved: 7000, full: true, error: undefined },
      },
      heartbeatAgeMs: 12,
    }));
  }

  events(since: number, follow: boolean, signal: AbortSignal) {
    return this.log.events(since, follow, signal);
  }

  async down(name?: string): Promise<void> {
    for (const service of name === undefined ? [...this.services.keys()] : [name]) {
      this.services.delete(service);
      this.log.append('service.down', service, 'everything removed');
    }
  }

  async shutdown(): Promise<void> {
    this.shutdowns++;
  }
}

export function sampleService(name: string, address: string, ports: number[]): ServiceStatus {
  const serialLog = `/var/lib/holdfast/${name}/a.console`;
  return {
    name,
    phase: 'protected',
    reason: undefined,
    address,
    ports,
    stoppedServices: [],
    accel: 'tcg',
    epoch: 1,
    connections: { tracked: 2, held: 0, spliced: 1, closed: 7, unprotected: 0 },
    recoveries: 0,
    recoveriesByCause: {},
    storage: { mode: 'none', holder: undefined, volatileBytes: 0 },
    guests: [
      {
        name: `${name}-a`,
        role: 'primary',
        state: 'active',
        bootId: 'b1',
        vcpuMs: 1234.6,
        vcpuMsAtSuspend: undefined,
        serialLog,
        managementAddress: '192.168.77.2/24',
        pid: 4711,
        residentBytes: 123 << 20,
      },
    ],
    log: {
      ...{ segmentsFree: 75, segmentsTotal: 100, usedBytes: 409_600, onFull: 'backpressure', full: false },
      spill: {
        ...{ directory: '/spill/web.spill', fileBytes: 5 << 20, limitBytes: 1 << 30, movedBytes: 7 << 20 },
        full: false,
      },
    },
  };
}

export function sampleIncident(service: string): IncidentDetail {
  const { verdicts, kept, lost } = sampleReport(service, 1);
  return {
    id: 17,
    service,
    cause: 'guest-panic',
    detail: `${service}-a: kernel panic (pvpanic)`,
    guest: `${service}-a`,
    successor: `${service}-b`,
    epoch: 2,
    outcome: 'recovered',
    timeline: {
      ...{ faultAt: 1000, detectedAt: 1012.3, fencedAt: 1013.1, takeoverAt: 1014, resumedAt: 1015 },
      ...{ firstSpliceAt: 1022.1, lastSpliceAt: 1105, recoveredAt: 1106, protectedAt: 31_000 },
    },
    evidence: [
      { at: 1012.5, type: 'guest.panicked', message: `${service}-a: \u001b[2Jkernel panic (pvpanic)` },
    ],
    kept,
    lost,
    consoleFile: `/var/lib/holdfast/incidents/${service}/${service}-a-1.console`,
    verdicts,
  };
}

export function sampleReport(service: string, lost: number): RecoveryReport {
  const verdict = { port: 80, inputBytes: 10, outputBytes: 20 };
  const kept = { ...verdict, outcome: 'kept' as const, code: 'spliced' as const, reason: 'spliced' };
  return {
    service,
    cause: 'guest-panic',
    epoch: 2,
    faultAt: 1000,
    detectedAt: 1012.3,
    fencedAt: 1013.1,
    resumedAt: 1015,
    firstSpliceAt: 1022.1,
    lastSpliceAt: 1105,
    kept: 2,
    lost,
    verdicts: [
      { ...kept, client: '192.0.2.50:1000', spliceMs: 9.1 },
      { ...kept, client: '192.0.2.50:1001', spliceMs: 92 },
      ...Array.from({ length: lost }, (_, i) => ({
        ...verdict,
        client: `192.0.2.51:${2000 + i}`,
        outcome: 'lost' as const,
        code: 'diverged-content' as const,
        reason: 'output differs',
        spliceMs: undefined,
      })),
    ],
  };
}

function sampleConnection(service: string): ConnectionStatus {
  const positions = { inputBytes: 100, outputSent: 2000, outputAcked: 1900, failovers: 0 };
  return {
    service,
    client: '192.0.2.50:1000',
    port: 80,
    state: 'tracked',
    guest: `${service}-a`,
    epoch: 1,
    ...positions,
    unprotected: undefined,
  };
}
