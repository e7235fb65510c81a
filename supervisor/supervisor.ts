import type { BackupOperation } from '../guest-agent/wire/control-page.js';
import { adoptService } from './adoption.js';
import type {
  BackupCommand,
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
} from './api/types.js';
import type { RunningSupervisor, SupervisorOptions } from './cli/supervisor-factory.js';
import { parseServiceConfig, type ServiceConfig } from './config/config.js';
import { differences } from './config/differences.js';
import { type Entry, entryStatus } from './entry.js';
import { Hypervisors } from './hypervisors.js';
import { IncidentStore } from './incidents/store.js';
import type { ServiceSample } from './metrics/sample.js';
import { busy, cancelled, checkConflicts, exists, unknown } from './refusals.js';
import { removeOrphan } from './removal.js';
import { checkAddresses } from './service/address-check.js';
import { checkBpffs } from './service/bpffs.js';
import { findImage } from './service/image.js';
import { checkMemory } from './service/memory.js';
import { ServiceNames } from './service/names.js';
import { orphaned, orphanStatus } from './service/orphan.js';
import { removeService } from './service/remove.js';
import { pinsExist, Service } from './service/service.js';
import { ServiceLocks } from './service/service-lock.js';
import { hostRestarted, type SavedService, ServiceFiles, savedServices } from './service/state-file.js';
import { checkStorage } from './service/storage-check.js';

/** The registry of services; what happens to one is in service/ and recovery/. */
export class Supervisor implements RunningSupervisor {
  readonly #entries = new Map<string, Entry>();
  readonly #hypervisors: Hypervisors;
  readonly #incidents: IncidentStore;
  /** Of each entry, and of what is being taken over or removed. */
  readonly #locks = new ServiceLocks();
  /** Why a service could not be taken over, by name. */
  readonly #refused = new Map<string, unknown>();

  private constructor(private readonly options: SupervisorOptions) {
    this.#hypervisors = new Hypervisors(options.stateDir);
    this.#incidents = new IncidentStore(options.stateDir, options.eventLog);
  }

  static async create(options: SupervisorOptions): Promise<Supervisor> {
    checkBpffs();
    const supervisor = new Supervisor(options);
    await Promise.all(savedServices(options.stateDir).map(name => supervisor.#adopt(name)));
    return supervisor;
  }

  async protect(configYaml: string, source: string): Promise<ServiceStatus> {
    const config = parseServiceConfig(configYaml, source);
    const { name } = config;
    const found = this.#entries.get(name);
    if (found) return this.#again(found, config);
    this.#locks.take(name);
    try {
      this.#checkFree(config);
      checkMemory(config);
    } catch (error) {
      this.#locks.release(name);
      throw error;
    }
    const entry: Entry = { config, service: undefined, started: Promise.resolve(), cancelled: false };
    this.#entries.set(name, entry);
    const start = this.#start(entry, { config: configYaml, source });
    entry.started = start.catch(error => error);
    try {
      await start;
    } catch (error) {
      if (!entry.cancelled) {
        this.options.eventLog.append('service.failed', name, `not started: ${(error as Error).message}`);
      }
      throw error;
    }
    return entry.service!.status();
  }

  async status(): Promise<ServiceStatus[]> {
    const live = [...this.#entries.values()].map(entryStatus);
    const orphans = this.#orphans().map(name =>
      orphanStatus(new ServiceFiles(this.options.stateDir, name), this.#orphaned(name)),
    );
    return [...(await Promise.all(live)), ...orphans];
  }

  samples(): ServiceSample[] {
    return [...this.#entries.values()].flatMap(({ service, removal }) =>
      service && !removal ? service.sample() : [],
    );
  }

  async connections(name?: string): Promise<ConnectionStatus[]> {
    if (name !== undefined) return this.#service(name).connections();
    return [...this.#entries.values()].flatMap(({ service, removal }) =>
      removal ? [] : (service?.connections() ?? []),
    );
  }

  async drill(name: string, fault: DrillFault): Promise<RecoveryReport> {
    return this.#service(name).drill(fault);
  }

  async migrate(name: string, request: MigrationRequest): Promise<MigrationReport> {
    return this.#service(name).migrate(request);
  }

  async abortMigration(name: string): Promise<MigrationReport> {
    return this.#service(name).abortMigration();
  }

  incidents(service?: string): Promise<Incident[]> {
    return this.#incidents.list(service);
  }

  incident(service: string, id: number): Promise<IncidentDetail> {
    return this.#incidents.detail(service, id);
  }

  events(since: number, follow: boolean, signal: AbortSignal) {
    return this.options.eventLog.events(since, follow, signal);
  }

  async down(name?: string): Promise<void> {
    if (name !== undefined) return this.#down(name);
    const all = [...this.#entries.keys(), ...this.#orphans()];
    const results = await Promise.allSettled(all.map(service => this.#down(service)));
    const failed = results.find(result => result.status === 'rejected');
    if (failed) throw failed.reason;
  }

  async shutdown(): Promise<void> {
    await Promise.allSettled([...this.#entries.values()].map(({ service }) => service?.release()));
    this.#incidents.close();
    await this.#hypervisors.close();
    this.#locks.releaseAll();
  }

  /** Takes over what an earlier supervisor left; a service for which that fails stays as it is. */
  async #adopt(name: string): Promise<void> {
    const { stateDir, eventLog } = this.options;
    try {
      this.#locks.take(name);
      const saved = new ServiceFiles(stateDir, name).load();
      if (saved && hostRestarted(saved)) return this.#startAnew(saved);
      const { config, service } = await adoptService(name, stateDir, this.#hypervisors, eventLog);
      const started = service.start().catch(() => {});
      this.#entries.set(name, { config, service, started, cancelled: false });
    } catch (error) {
      this.#locks.release(name);
      this.#refused.set(name, error);
      eventLog.append('service.orphaned', name, `not taken over: ${(error as Error).message}`);
    }
  }

  async backup(name: string, command: BackupCommand): Promise<BackupStatus> {
    return this.#service(name).backup(command);
  }

  async grants(name?: string): Promise<Grant[]> {
    if (name !== undefined) return [this.#service(name).grants];
    return [...this.#entries.values()].flatMap(({ service, removal }) =>
      service && !removal ? service.grants : [],
    );
  }

  async grant(name: string, operations: readonly BackupOperation[], granted: boolean): Promise<Grant> {
    return this.#service(name).grant(operations, granted);
  }

  /** After a restart of the host: the service is protected as it was configured. If that fails, the next `up` tries again. */
  #startAnew(saved: SavedService): void {
    const { name, source } = saved;
    const { stateDir, eventLog } = this.options;
    const config = parseServiceConfig(saved.config, saved.source);
    const entry: Entry = { config, service: undefined, started: Promise.resolve(), cancelled: false };
    this.#entries.set(name, entry);
    eventLog.append('host.restarted', name, 'the host has been started anew: the service is, too');
    const files = new ServiceFiles(stateDir, name);
    entry.started = removeOrphan(name, stateDir, this.#hypervisors)
      .then(() => {
        // The image may take minutes: until there is more to say, an end of this daemon must not forget the service.
        files.save(saved);
        return this.#start(entry, { config: saved.config, source }, saved.grants);
      })
      .catch(error => {
        if (!entry.cancelled) {
          files.save(saved);
          this.#forget(name);
          this.#refused.set(name, error);
          eventLog.append('service.failed', name, `not started: ${(error as Error).message}`);
        }
        return error;
      });
  }

  /** `up` with a service that there is: nothing to do but to wait until it is protected, unless it is to become another. */
  async #again(found: Entry, config: ServiceConfig): Promise<ServiceStatus> {
    if (found.cancelled || found.removal) throw busy(config.name);
    const changed = differences(found.config, config);
    if (changed.length > 0) throw exists(config.name, changed);
    const error = await found.started;
    if (error || !found.service) throw error ?? unknown(config.name);
    await found.service.protected();
    return found.service.status();
  }

  async #start(
    entry: Entry,
    text: { config: string; source: string },
    grants?: readonly BackupOperation[],
  ): Promise<void> {
    const { config } = entry;
    const { stateDir, eventLog } = this.options;
    const names = new ServiceNames(config.name);
    const files = new ServiceFiles(stateDir, config.name);
    const { uri } = config.hypervisor;
    eventLog.append('service.starting', config.name, `primary and backup of ${config.address} are started`);
    const forget = (error: unknown) => {
      this.#forget(config.name);
      throw error;
    };
    await Promise.all([checkStorage(config.storage), checkAddresses(config)]).catch(forget);
    const image = await findImage(config.source).catch(forget);
    const hypervisor = await this.#hypervisors.acquire(uri, image.kernel).catch(forget);
    try {
      const given = { ...text, image: image.place };
      const options = { config, given, names, files, image, hypervisor, log: eventLog, grants };
      entry.service = await Service.create(options);
      if (entry.cancelled) throw cancelled(config.name);
      await entry.service.start();
    } catch (error) {
      // `down` removes by itself what it cancelled.
      if (!entry.cancelled) {
        entry.removal = this.#remove(entry, names, files).catch(failure => {
          // Why it did not start matters more.
          eventLog.append('service.trouble', config.name, `not wholly removed: ${failure.message}`);
        });
        await entry.removal;
      }
      throw error;
    }
  }

  async #down(name: string): Promise<void> {
    const names = new ServiceNames(name);
    const files = new ServiceFiles(this.options.stateDir, name);
    const entry = this.#entries.get(name);
    if (entry) {
      if (entry.removal) return entry.removal;
      entry.cancelled = true;
      entry.removal = this.#take(entry, name, names, files);
      await entry.removal;
    } else {
      if (!this.#orphans().includes(name) && !pinsExist(names)) throw unknown(name);
      this.#locks.take(name);
      try {
        await removeOrphan(name, this.options.stateDir, this.#hypervisors);
      } finally {
        this.#locks.release(name);
      }
      this.#refused.delete(name);
    }
    this.options.eventLog.append('service.down', name, 'guests, taps, pins and files are removed');
  }

  async #take(entry: Entry, name: string, names: ServiceNames, files: ServiceFiles): Promise<void> {
    const released = entry.service?.release();
    await entry.started;
    await (released ?? entry.service?.release());
    if (this.#entries.get(name) === entry) await this.#remove(entry, names, files);
  }

  /** Everything of a service whose start has failed, or that is to end. */
  async #remove(entry: Entry, names: ServiceNames, files: ServiceFiles): Promise<void> {
    const { uri } = entry.config.hypervisor;
    if (!entry.cancelled) await entry.service?.release();
    try {
      const hypervisor = await this.#hypervisors.acquire(uri, undefined);
      await removeService(names, files, hypervisor).finally(() => this.#hypervisors.release(uri));
    } finally {
      this.#forget(entry.config.name);
      await this.#hypervisors.release(uri);
    }
  }

  #forget(name: string): void {
    this.#entries.delete(name);
    this.#locks.release(name);
  }

  #service(name: string): Service {
    const entry = this.#entries.get(name);
    if (entry?.service && !entry.removal) return entry.service;
    if (entry) throw busy(name);
    throw this.#orphans().includes(name) ? this.#orphaned(name) : unknown(name);
  }

  #orphaned(name: string): Error {
    const why = this.#refused.get(name);
    return why instanceof Error
      ? why
      : orphaned(name, `its state file is missing in ${this.options.stateDir}`);
  }

  #orphans(): string[] {
    return savedServices(this.options.stateDir).filter(name => !this.#entries.has(name));
  }

  #checkFree(config: ServiceConfig): void {
    const { name } = config;
    if (this.#orphans().includes(name) || pinsExist(new ServiceNames(name))) throw this.#orphaned(name);
    checkConflicts(
      config,
      [...this.#entries.values()].map(entry => entry.config),
    );
  }
}
