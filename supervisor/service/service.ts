import { existsSync } from 'node:fs';
import type { GuestEvent, Hypervisor } from '../../hypervisor-shim/hypervisor.js';
import { macBytes } from '../../hypervisor-shim/replay/namespace.js';
import type { ConnectionStatus, DrillFault, RecoveryReport, ServiceStatus } from '../api/types.js';
import { atMonotonic } from '../clock.js';
import type { ServiceConfig } from '../config/config.js';
import type { EventLog } from '../events/event-log.js';
import { Pulse } from '../recovery/detect.js';
import { drill } from '../recovery/drill.js';
import { Janitor } from '../recovery/janitor.js';
import { Upkeep } from '../recovery/upkeep.js';
import { adoptDataPath, adoptGuests } from './adopt.js';
import { ensureBpffs } from './bpffs.js';
import { loadDataPath } from './data-path.js';
import { connectionStatus, countFlows } from './flows.js';
import { GuestMaker } from './guest-maker.js';
import type { Image } from './image.js';
import type { ServiceNames } from './names.js';
import { ServiceNetwork, serviceMac } from './network.js';
import { type Fault, Protection } from './protection.js';
import type { SavedService, ServiceFiles } from './state-file.js';

/** Flow records of a service. Each costs about half a KiB of kernel memory. */
const MAX_FLOWS = 65_536;

const CAUSES: Partial<Record<GuestEvent['kind'], Fault['cause']>> = {
  panicked: 'guest-panic',
  gone: 'guest-gone',
  // A rebooted kernel knows none of its connections; the supervisor does not let it come back.
  shutdown: 'guest-gone',
};

export interface ServiceOptions {
  config: ServiceConfig;
  /** The configuration's text and file, kept for a successor. */
  given: { config: string; source: string };
  names: ServiceNames;
  files: ServiceFiles;
  image: Image;
  hypervisor: Hypervisor;
  log: EventLog;
}

/** One protected service: its network, data path, guests, and what watches over them. */
export class Service {
  readonly #upkeep: Upkeep;
  readonly #pulse: Pulse;
  readonly #janitor: Janitor;
  #running: Promise<void> = Promise.resolve();
  readonly #onGuest = (event: GuestEvent) => this.#guestEvent(event);

  private constructor(
    readonly config: ServiceConfig,
    private readonly p: Protection,
    private readonly hypervisor: Hypervisor,
  ) {
    this.#upkeep = new Upkeep(p);
    this.#pulse = new Pulse(p, hypervisor.accel);
    this.#janitor = new Janitor(p);
    hypervisor.on('guest', this.#onGuest);
  }

  /** Makes network and data path. On failure, as at any time, `removeService` removes what there is by then. */
  static async create(o: ServiceOptions): Promise<Service> {
    const { config, names, files } = o;
    files.save({ name: config.name, ...o.given, epoch: 0, generation: 0, guests: [] });
    await ensureBpffs();
    const network = await ServiceNetwork.create(names, config);
    const path = await loadDataPath({
      pinDirectory: names.pins,
      address: Uint8Array.from(config.address.split('/')[0]!.split('.'), Number),
      ports: config.ports,
      guestMac: macBytes(serviceMac(config)),
      compare: config.recovery.compare,
      logMiB: config.log.sizeMiB,
      maxFlows: MAX_FLOWS,
    });
    path.attachWire(network.wireIfindex);
    const maker = new GuestMaker(o.hypervisor, config, names, files, o.image, network);
    const protection = new Protection(config, names, files, o.given, path, maker, o.log);
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
      const service = new Service(config, protection, o.hypervisor);
      try {
        await adoptGuests(protection, saved);
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
    this.#janitor.start();
    const result = new Promise<void>((resolve, reject) => {
      this.#upkeep.once('protected', resolve).once('failed', reject);
      this.p.stopped.addEventListener('abort', () => reject(this.p.stopped.reason));
    });
    this.#running = this.#upkeep.run();
    await result;
  }

  async status(): Promise<ServiceStatus> {
    const { p, config } = this;
    return {
      name: config.name,
      phase: p.phase,
      reason: p.reason,
      address: config.address,
      ports: config.ports,
      accel: this.hypervisor.accel,
      epoch: p.epoch,
      recoveries: p.recoveries,
      guests: await Promise.all(p.guests().map(({ guest, role }) => guest.status(role))),
      ...countFlows(p),
    };
  }

  connections(): ConnectionStatus[] {
    return [...this.p.path.flows()].map(({ flow }) => connectionStatus(this.p, flow));
  }

  drill(fault: DrillFault): Promise<RecoveryReport> {
    return drill(this.p, this.#upkeep, fault);
  }

  /** Stops acting; guests, connections and data path go on. Resolves when nothing is under way any more. */
  async release(): Promise<void> {
    const { p } = this;
    this.hypervisor.off('guest', this.#onGuest);
    this.#pulse.stop();
    this.#janitor.stop();
    p.become('stopping');
    p.stop();
    // Ends a replay that is under way, too.
    await p.replayer?.dispose();
    await this.#running;
    await p.replayer?.dispose();
    await Promise.all(p.guests().map(({ guest }) => guest.busy));
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
    p.say(`guest.${event.kind}`, `${guest.name}: ${event.detail}`, { guest: guest.name, detectedAt });
    if (guest === p.backup && !isPrimary) {
      p.backupFailed(guest);
    }
  }
}

export const pinsExist = (names: ServiceNames): boolean => existsSync(names.pins);
