import { HoldfastError } from '../hypervisor-shim/errors.js';
import type { ConnectionStatus, DrillFault, RecoveryReport, ServiceStatus } from './api/types.js';
import type { RunningSupervisor, SupervisorOptions } from './cli/supervisor-factory.js';
import { overlaps, parseCidr } from './config/cidr.js';
import { parseServiceConfig, type ServiceConfig } from './config/config.js';
import { Hypervisors } from './hypervisors.js';
import { findImage } from './service/image.js';
import { ServiceNames } from './service/names.js';
import { orphanStatus } from './service/orphan.js';
import { removeService } from './service/remove.js';
import { pinsExist, Service } from './service/service.js';
import { ServiceFiles, savedServices } from './service/state-file.js';

/** A service that exists, or is being made: then there is nothing yet to ask. */
interface Entry {
  config: ServiceConfig;
  service: Service | undefined;
  /** Settles when the attempt to protect it is over. */
  started: Promise<unknown>;
  /** Set as soon as somebody wants it down. */
  cancelled: boolean;
  /** The removal under way, for everybody who wants it. */
  removal?: Promise<void>;
}

/** The registry of services; what happens to one is in service/ and recovery/. */
export class Supervisor implements RunningSupervisor {
  readonly #entries = new Map<string, Entry>();
  readonly #hypervisors: Hypervisors;

  private constructor(private readonly options: SupervisorOptions) {
    this.#hypervisors = new Hypervisors(options.stateDir);
  }

  static async create(options: SupervisorOptions): Promise<Supervisor> {
    for (const name of savedServices(options.stateDir)) {
      options.eventLog.append('service.orphaned', name, orphaned(name).message);
    }
    return new Supervisor(options);
  }

  async protect(configYaml: string, source: string): Promise<ServiceStatus> {
    const config = parseServiceConfig(configYaml, source);
    const { name } = config;
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
    const orphans = this.#orphans().map(name => orphanStatus(new ServiceFiles(this.options.stateDir, name)));
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

  async #start(entry: Entry, given: { config: string; source: string }): Promise<void> {
    const { config } = entry;
    const { stateDir, eventLog } = this.options;
    const names = new ServiceNames(config.name);
    const files = new ServiceFiles(stateDir, config.name);
    const { uri } = config.hypervisor;
    eventLog.append('service.starting', config.name, `primary and backup of ${config.address} are started`);
    const image = await findImage(config.source).catch(error => {
      this.#entries.delete(config.name);
      throw error;
    });
    const hypervisor = await this.#hypervisors.acquire(uri, image.kernel).catch(error => {
      this.#entries.delete(config.name);
      throw error;
    });
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
    if (entry) {
      throw new HoldfastError('HF_SERVICE_BUSY', `${name} is being started`, 'Wait until it is protected.');
    }
    throw this.#orphans().includes(name) ? orphaned(name) : unknown(name);
  }

  #orphans(): string[] {
    return savedServices(this.options.stateDir).filter(name => !this.#entries.has(name));
  }

  #checkFree({ name, management, address, uplink }: ServiceConfig): void {
    if (this.#entries.has(name)) {
      throw new HoldfastError(
        'HF_SERVICE_EXISTS',
        `there is a service ${name} already`,
        `Stop it first (\`holdfast down ${name}\`), or choose another name.`,
      );
    }
    if (this.#orphans().includes(name) || pinsExist(new ServiceNames(name))) throw orphaned(name);
    for (const { config } of this.#entries.values()) {
      if (config.uplink.bridge === uplink.bridge && host(config.address) === host(address)) {
        throw new HoldfastError(
          'HF_CONFIG_CONFLICT',
          `address is ${address}, which ${config.name} has on the bridge ${uplink.bridge} already`,
          'Give each service an address of its own, or list all its ports in one service.',
        );
      }
      if (overlaps(parseCidr(config.management.subnet)!, parseCidr(management.subnet)!)) {
        throw new HoldfastError(
          'HF_CONFIG_CONFLICT',
          `management.subnet is ${management.subnet}, which overlaps that of ${config.name}, ${config.management.subnet}`,
          'Give each service a management network of its own.',
        );
      }
    }
  }
}

const host = (cidr: string): string => cidr.split('/')[0]!;

async function startingStatus(config: ServiceConfig): Promise<ServiceStatus> {
  return {
    name: config.name,
    phase: 'starting',
    reason: 'image and hypervisor are made ready',
    address: config.address,
    ports: config.ports,
    accel: 'tcg',
    epoch: 0,
    connections: { tracked: 0, held: 0, spliced: 0, closed: 0 },
    recoveries: 0,
    guests: [],
    log: { segmentsFree: 0, segmentsTotal: 0 },
  };
}

function orphaned(name: string): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_ORPHANED',
    `${name} was left behind by a supervisor that has ended; taking it over is not yet supported`,
    `Remove what is left with \`holdfast down ${name}\`, then protect it again.`,
  );
}

function unknown(name: string): HoldfastError {
  return new HoldfastError(
    'HF_SERVICE_UNKNOWN',
    `there is no service ${JSON.stringify(name)}`,
    'Look at `holdfast status` for those there are.',
  );
}

function cancelled(name: string): HoldfastError {
  return new HoldfastError('HF_STOPPING', `${name} is being stopped`, 'Start it again when it is.');
}
