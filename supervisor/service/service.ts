import { existsSync } from 'node:fs';
import type { BackupOperation } from '../../guest-agent/wire/control-page.js';
import { addressBytes } from '../../hypervisor-shim/datapath/addresses.js';
import type { GuestEvent, Hypervisor } from '../../hypervisor-shim/hypervisor.js';
import { macBytes } from '../../hypervisor-shim/replay/namespace.js';
import type {
  BackupCommand,
  BackupStatus,
  ConnectionStatus,
  DrillFault,
  Grant,
  GuestStatus,
  MigrationReport,
  MigrationRequest,
  RecoveryReport,
  ServiceStatus,
} from '../api/types.js';
import { atMonotonic } from '../clock.js';
import { hostAddresses, type ServiceConfig } from '../config/config.js';
import type { EventLog } from '../events/event-log.js';
import { GrantListener } from '../grants/listener.js';
import type { ServiceSample } from '../metrics/sample.js';
import { owned } from '../migration/let-go.js';
import { abortMigration, migrate } from '../migration/migration.js';
import { CrashWatch } from '../recovery/crash-watch.js';
import { Pulse } from '../recovery/detect.js';
import { drill } from '../recovery/drill.js';
import { InPlace } from '../recovery/in-place.js';
import { Janitor } from '../recovery/janitor.js';
import { LifeWatch } from '../recovery/life-watch.js';
import { Prober } from '../recovery/probe.js';
import { Upkeep } from '../recovery/upkeep.js';
import { adoptDataPath, adoptGuests } from './adopt.js';
import { Backup } from './backup.js';
import { ensureBpffs } from './bpffs.js';
import { loadDataPath } from './data-path.js';
import { connectionStatus, countFlows, countSegments } from './flows.js';
import type { GuestVm } from './guest.js';
import { GuestMaker } from './guest-maker.js';
import type { Image } from './image.js';
import type { ServiceNames } from './names.js';
import { ServiceNetwork, serviceMac } from './network.js';
import { type Fault, Protection } from './protection.js';
import { startSpilling, trySpilling } from './spill.js';
import type { Given, SavedService, ServiceFiles } from './state-file.js';
import { VolatileWatch } from './volatile.js';

const CAUSES: Partial<Record<GuestEvent['kind'], Fault['cause']>> = {
  panicked: 'guest-panic',
  gone: 'guest-gone',
  // A rebooted kernel knows none of its connections; the supervisor does not let it come back.
  shutdown: 'guest-shutdown',
};

export interface ServiceOptions {
  config: ServiceConfig;
  given: Given;
  names: ServiceNames;
  files: ServiceFiles;
  image: Image;
  hypervisor: Hypervisor;
  log: EventLog;
  /** What the active guest may ask for, from the beginning. */
  grants?: readonly BackupOperation[] | undefined;
}

/** One protected service: its network, data path, guests, and what watches over them. */
export class Service {
  readonly #upkeep: Upkeep;
  readonly #pulse: Pulse;
  readonly #pulseOfLeaving: Pulse;
  readonly #crashes: CrashWatch;
  readonly #inPlace: InPlace;
  readonly #janitor: Janitor;
  readonly #lives: LifeWatch;
  readonly #volatile: VolatileWatch;
  readonly #backup: Backup;
  readonly #requests: GrantListener;
  #running: Promise<void> = Promise.resolve();
  readonly #onGuest = (event: GuestEvent) => this.#guestEvent(event);

  private constructor(
    readonly config: ServiceConfig,
    private readonly p: Protection,
    private readonly hypervisor: Hypervisor,
  ) {
    this.#upkeep = new Upkeep(p);
    this.#inPlace = new InPlace(p, report => this.#upkeep.emit('report', report));
    this.#pulse = new Pulse(p, this.#inPlace, hypervisor.accel);
    this.#pulseOfLeaving = new Pulse(p, this.#inPlace, hypervisor.accel, 'leaving');
    this.#crashes = new CrashWatch(p, this.#inPlace);
    this.#janitor = new Janitor(p);
    this.#lives = new LifeWatch(p, p.maker.image.services);
    this.#volatile = new VolatileWatch(p);
    this.#backup = new Backup(p);
    this.#requests = new GrantListener(p, this.#backup);
    hypervisor.on('guest', this.#onGuest);
  }

  /** Makes network and data path. On failure, as at any time, `removeService` removes what there is by then. */
  static async create(o: ServiceOptions): Promise<Service> {
    const { config, names, files } = o;
    const grants = [...(o.grants ?? [])];
    files.save({ name: config.name, ...o.given, epoch: 0, generation: 0, guests: [], grants });
    await ensureBpffs();
    const network = await ServiceNetwork.create(names, config);
    const hosts = hostAddresses(config);
    const path = await loadDataPath({
      pinDirectory: names.pins,
      address: addressBytes(hosts.address),
      address6: hosts.address6 === undefined ? undefined : addressBytes(hosts.address6),
      ports: config.ports,
      guestMac: macBytes(serviceMac(config)),
      compare: config.recovery.compare,
      logMiB: config.log.sizeMiB,
      onFull: config.log.onFull,
      perConnectionMiB: config.log.perConnectionMiB,
      maxFlows: config.connections.max,
      onTableFull: config.connections.onFull,
    });
    path.attachWire(network.wireIfindex, network.portIfindex);
    const maker = new GuestMaker(o.hypervisor, config, names, files, o.image, network);
    const protection = new Protection(config, names, files, o.given, path, maker, o.log);
    for (const operation of grants) protection.grants.add(operation);
    await startSpilling(protection).catch(error => {
      path.close();
      throw error;
    });
    return new Service(config, protection, o.hypervisor);
  }

  /** Takes over what an earlier supervisor left; nothing of it is changed unless it can be. `start` it next. */
  static async adopt(o: ServiceOptions, saved: SavedService): Promise<Service> {
    const { config, names, files } = o;
    const path = adoptDataPath(names);
    try {
      const network = await ServiceNetwork.adopt(names, config);
      const maker = new GuestMaker(o.hypervisor, config, names, files, o.image, network);
      const protection = new Protection(config, names, files, o.given, path, maker, o.log);
      protection.history.restore(saved.history);
      for (const operation of saved.grants ?? []) protection.grants.add(operation);
      const service = new Service(config, protection, o.hypervisor);
      try {
        await adoptGuests(protection, saved);
        await trySpilling(protection);
      } catch (error) {
        o.hypervisor.off('guest', service.#onGuest);
        throw error;
      }
      return service;
    } catch (error) {
      path.close();
      throw error;
    }
  }

  /** Starts the guests; resolves when the service is protected. The first failure until then rejects. */
  async start(): Promise<void> {
    this.#pulse.start();
    this.#pulseOfLeaving.start();
    this.#crashes.start();
    this.#janitor.start();
    this.#lives.start();
    this.#volatile.start();
    void new Prober(this.p).run();
    this.#requests.start();
    const result = this.protected();
    this.#running = this.#upkeep.run();
    await result;
  }

  /** Resolves when the service is protected. The first failure until then rejects, and so does its end. */
  async protected(): Promise<void> {
    const { stopped, phase } = this.p;
    stopped.throwIfAborted();
    if (phase === 'protected') return;
    const over = new AbortController();
    const { signal } = over;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#upkeep.once('protected', resolve).once('failed', reject);
        stopped.addEventListener('abort', () => reject(stopped.reason), { signal });
        signal.addEventListener('abort', () => this.#upkeep.off('protected', resolve).off('failed', reject));
      });
    } finally {
      over.abort();
    }
  }

  async status(): Promise<ServiceStatus> {
    const { p, config } = this;
    return {
      name: config.name,
      phase: p.phase,
      reason: p.reason,
      address: config.address,
      ports: config.ports,
      stoppedServices: p.stoppedServices,
      accel: this.hypervisor.accel,
      epoch: p.epoch,
      ...p.history.status(),
      storage: {
        mode: config.storage.mode,
        holder: p.holder?.name,
        volatileBytes: this.#volatile.written,
      },
      guests: await Promise.all(
        this.#guests().map(async ({ guest, role }) => ({
          ...(await guest.status(role)),
          managementAddress: p.maker.managementAddress(guest.slot),
        })),
      ),
      ...countFlows(p),
      ...(p.migration && { migration: { ...p.migration, left: p.leaving ? owned(p, p.leaving) : 0 } }),
    };
  }

  sample(): ServiceSample {
    const { p } = this;
    const { startedAt, recoveriesByCause } = p.history.status();
    return {
      name: this.config.name,
      phase: p.phase,
      epoch: p.epoch,
      startedAt,
      guests: this.#guests().map(({ guest, role }) => ({ role, state: guest.state })),
      connections: countFlows(p).connections,
      maxConnections: p.path.maxFlows,
      recoveriesByCause,
      counters: p.path.stats(),
      segments: countSegments(p),
      spill: p.spiller?.state,
      heartbeatAgeMs: this.#pulse.heartbeatAgeMs,
    };
  }

  /** Those that have a role, and the one that boots, which is to have one. */
  #guests(): { guest: GuestVm; role: GuestStatus['role'] }[] {
    const { booting, primary } = this.p;
    const all: { guest: GuestVm; role: GuestStatus['role'] }[] = this.p.guests();
    return booting ? [...all, { guest: booting, role: primary ? 'backup' : 'primary' }] : all;
  }

  connections(): ConnectionStatus[] {
    return [...this.p.path.flows()].map(({ flow }) => connectionStatus(this.p, flow));
  }

  migrate(request: MigrationRequest): Promise<MigrationReport> {
    return migrate(this.p, request);
  }

  abortMigration(): Promise<MigrationReport> {
    return abortMigration(this.p);
  }

  backup(command: BackupCommand): Promise<BackupStatus> {
    return this.#backup.command(command);
  }

  grant(operations: readonly BackupOperation[], granted: boolean): Grant {
    this.p.grant(operations, granted);
    return this.grants;
  }

  get grants(): Grant {
    return { service: this.config.name, operations: this.p.granted };
  }

  drill(fault: DrillFault): Promise<RecoveryReport> {
    return drill(this.p, this.#upkeep, fault);
  }

  /** Stops acting; guests, connections and data path go on. Resolves when nothing is under way any more. */
  async release(): Promise<void> {
    const { p } = this;
    this.hypervisor.off('guest', this.#onGuest);
    this.#pulse.stop();
    this.#pulseOfLeaving.stop();
    this.#crashes.stop();
    this.#janitor.stop();
    this.#lives.stop();
    this.#volatile.stop();
    this.#requests.stop();
    p.become('stopping');
    p.stop();
    // Ends a replay that is under way, too.
    await p.replayer?.dispose();
    await this.#running;
    await this.#inPlace.idle;
    await p.replayer?.dispose();
    await Promise.all(p.guests().map(({ guest }) => guest.busy));
    await p.spiller?.stop();
    p.path.close();
  }

  #guestEvent(event: GuestEvent): void {
    const { p } = this;
    const cause = CAUSES[event.kind];
    const guest = [...p.guests().map(entry => entry.guest), p.booting].find(it => it?.name === event.guest);
    if (!guest || !cause) return;
    const detectedAt = atMonotonic(event.atNs);
    const isPrimary = guest === p.primary;
    // The fence first: everything else can wait.
    if (isPrimary) p.primaryFailed(cause, `${guest.name}: ${event.detail}`, detectedAt);
    guest.note(event);
    p.leavingFailed(guest, event.detail);
    p.say(`guest.${event.kind}`, `${guest.name}: ${event.detail}`, { guest: guest.name, detectedAt });
    if (guest === p.backup && !isPrimary) {
      p.backupFailed(guest);
    }
  }
}

export const pinsExist = (names: ServiceNames): boolean => existsSync(names.pins);
