import { adoptService } from './adoption.js';
import type { ConnectionStatus, DrillFault, RecoveryReport, ServiceStatus } from './api/types.js';
import type { RunningSupervisor, SupervisorOptions } from './cli/supervisor-factory.js';
import { parseServiceConfig, type ServiceConfig } from './config/config.js';
import type { Entry } from './entry.js';
import { Hypervisors } from './hypervisors.js';
import { busy, cancelled, checkConflicts, exists, unknown } from './refusals.js';
import { findImage } from './service/image.js';
import { ServiceNames } from './service/names.js';
import { orphaned, orphanStatus, startingStatus } from './service/orphan.js';
import { removeService } from './service/remove.js';
import { pinsExist, Service } from './service/service.js';
import { ServiceFiles, savedServices } from './service/state-file.js';

/** The registry of services; what happens to one is in service/ and recovery/. */
export class Supervisor implements RunningSupervisor {
  readonly #entries = new Map<string, Entry>();
  readonly #hypervisors: Hypervisors;
  /** Why a service could not be taken over, by name. */
  readonly #refused = new Map<string, unknown>();

  private constructor(private readonly options: SupervisorOptions) {
    this.#hypervisors = new Hypervisors(options.stateDir);
  }

  static async create(options: SupervisorOptions): Promise<Supervisor> {
    const supervisor = new Supervisor(options);
    await Promise.all(savedServices(options.stateDir).map(name => supervisor.#adopt(name)));
    return supervisor;
  }

  async protect(configYaml: string, source: string): Promise<ServiceStatus> {
    const config = parseServiceConfig(configYaml, source);
    const { name } = config;
    const found = this.#entries.get(name);
    if (found?.service && found.adopted === configYaml) {
      return found.started.then(() => found.service!.status());
    }
    this.#checkFree(config);
    const entry: Entry = { config, service: undefined, started: Promise.resolve(), cancelled: false };
    this.#entries.set(name, entry);
    const start = this.#start(entry, { config: configYaml, source });
    entry.started = start.catch(() => {});
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
    const entries = [...this.#entries.values()];
    const live = entries.map(({ config, service }) => service?.status() ?? startingStatus(config));
    const orphans = this.#orphans().map(name =>
      orphanStatus(new ServiceFiles(this.options.stateDir, name), this.#orphaned(name)),
    );
    return [...(await Promise.all(live)), ...orphans.filter(status => status !== undefined)];
  }

  async connections(name?: string): Promise<ConnectionStatus[]> {
    if (name !== undefined) return this.#service(name).connections();
    return [...this.#entries.values()].flatMap(({ service }) => service?.connections() ?? []);
  }

  async drill(name: string, fault: DrillFault): Promise<RecoveryReport> {
    return this.#service(name).drill(fault);
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
    await this.#hypervisors.close();
  }

  /** Takes over what an earlier supervisor left; a service for which that fails stays as it is. */
  async #adopt(name: string): Promise<void> {
    const { stateDir, eventLog } = this.options;
    try {
      const { config, service, text } = await adoptService(name, stateDir, this.#hypervisors, eventLog);
      const started = service.start().catch(() => {});
      this.#entries.set(name, { config, service, started, cancelled: false, adopted: text });
    } catch (error) {
      this.#refused.set(name, error);
      eventLog.append('service.orphaned', name, `not taken over: ${(error as Error).message}`);
    }
  }

  async #start(entry: Entry, given: { config: string; source: string }): Promise<void> {
    const { config } = entry;
    const { stateDir, eventLog } = this.options;
    const names = new ServiceNames(config.name);
    const files = new ServiceFiles(stateDir, config.name);
    const { uri } = config.hypervisor;
    eventLog.append('service.starting', config.name, `primary and backup of ${config.address} are started`);
    const forget = (error: unknown) => {
      this.#entries.delete(config.name);
      throw error;
    };
    const image = await findImage(config.source).catch(forget);
    const hypervisor = await this.#hypervisors.acquire(uri, image.kernel).catch(forget);
    try {
      entry.service = await Service.create({ config, given, names, files, image, hypervisor, log: eventLog });
      if (entry.cancelled) throw cancelled(config.name);
      await entry.service.start();
    } catch (error) {
      // `down` removes by itself what it cancelled.
      if (!entry.cancelled) await this.#remove(entry, names, files);
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
      const saved = files.load();
      if (!saved && !pinsExist(names)) throw unknown(name);
      const uri = saved && parseServiceConfig(saved.config, saved.source).hypervisor.uri;
      const hypervisor = saved && (await this.#hypervisors.acquire(uri, undefined));
      try {
        await removeService(names, files, hypervisor);
      } finally {
        if (hypervisor) await this.#hypervisors.release(uri);
      }
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
    const hypervisor = await this.#hypervisors.acquire(uri, undefined);
    try {
      await removeService(names, files, hypervisor);
    } finally {
      this.#entries.delete(entry.config.name);
      await this.#hypervisors.release(uri);
      await this.#hypervisors.release(uri);
    }
  }

  #service(name: string): Service {
    const entry = this.#entries.get(name);
    if (entry?.service) return entry.service;
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
    if (this.#entries.has(name)) throw exists(name);
    if (this.#orphans().includes(name) || pinsExist(new ServiceNames(name))) throw this.#orphaned(name);
    checkConflicts(
      config,
      [...this.#entries.values()].map(entry => entry.config),
    );
  }
}
