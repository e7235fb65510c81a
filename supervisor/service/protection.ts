import { BACKUP_OPERATIONS, type BackupOperation } from '../../guest-agent/wire/control-page.js';
import type { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { type FlowVerdict, Replayer } from '../../hypervisor-shim/replay/replayer.js';
import type { Spiller } from '../../hypervisor-shim/spill/spiller.js';
import { GUEST_ROLES } from '../api/schemas.js';
import type {
  GuestRole,
  HoldfastEvent,
  MigrationPlan,
  MigrationReport,
  RecoveryReport,
  ServicePhase,
} from '../api/types.js';
import { now } from '../clock.js';
import { hostAddresses, type ServiceConfig } from '../config/config.js';
import type { EventLog, NewEvent } from '../events/event-log.js';
import { Exchanges } from '../migration/exchanges.js';
import type { Interrupted } from '../recovery/interrupted.js';
import type { GuestVm } from './guest.js';
import type { GuestMaker } from './guest-maker.js';
import { History } from './history.js';
import { type ServiceNames, SLOTS } from './names.js';
import { serviceMac } from './network.js';
import { spillDirectory } from './spill.js';
import type { Given, SavedService, ServiceFiles } from './state-file.js';

/** The primary's end, noticed and fenced, not yet recovered from. */
export interface Fault {
  cause: RecoveryReport['cause'];
  detail: string;
  detectedAt: number;
  fencedAt: number;
  faultAt: number | undefined;
}

/** What the parts of a protected service share: who is what, and what has happened that somebody must act on. */
export class Protection {
  phase: ServicePhase = 'starting';
  reason: string | undefined = 'the primary boots';
  primary: GuestVm | undefined;
  backup: GuestVm | undefined;
  /** In a migration: the primary of before, which is well, and serves the connections that it still has. */
  leaving: GuestVm | undefined;
  /** A planned change to another guest, wanted or under way. */
  migration: MigrationPlan | undefined;
  /** How the last one ended. */
  migrated: MigrationReport | undefined;
  /** The last failed primary, kept for diagnosis. */
  former: GuestVm | undefined;
  /** Not yet anything: what fails now is its boot. */
  booting: GuestVm | undefined;
  /** To be removed. */
  failedBackup: GuestVm | undefined;
  /** Ready for the next recovery. */
  replayer: Replayer | undefined;
  /** Moves the log's input to files, if it is to be spilled. */
  spiller: Spiller | undefined;
  fault: Fault | undefined;
  /** The only guest that may write to storage that lasts. It may have ended, or not have got its disk yet. */
  holder: GuestVm | undefined;
  /** When a drill injected its fault. */
  drillAt: number | undefined;
  /** Verdicts, by connection, of a recovery that a second fault interrupted: they belong into the report of the next. */
  unreported = new Map<string, FlowVerdict>();
  /** A recovery that ended before its report. */
  interrupted: Interrupted | undefined;
  /** The log refused input, and has had no room to speak of since. */
  logFull = false;
  /** There are held flows although the primary is well. */
  lateFlows = false;
  /** A process of the primary died, and its connections are held to be replayed there; the others are served. */
  crashed: Fault | undefined;
  /** The primary's service died and is started again: nobody has told it to yet, or it is on its way. */
  restarting: 'waits' | 'starts' | undefined;
  /** A replay is running: flows change state under its hands. */
  replaying = false;
  readonly history = new History();
  readonly exchanges: Exchanges;
  /** What the active guest may ask for. */
  readonly grants = new Set<BackupOperation>();
  epoch = 0;
  /** Guests made so far. */
  generation = 0;
  /** Who uses the replayer, or makes one: its namespace has one name. */
  #replaying: Promise<void> = Promise.resolve();
  readonly #stop = new AbortController();
  #wake: () => void = () => {};

  constructor(
    readonly config: ServiceConfig,
    readonly names: ServiceNames,
    readonly files: ServiceFiles,
    private readonly given: Given,
    readonly path: DataPath,
    readonly maker: GuestMaker,
    private readonly log: EventLog,
  ) {
    this.exchanges = new Exchanges(path, config.protocols);
  }

  /** Aborted when the service is to end, or to be left alone. */
  get stopped(): AbortSignal {
    return this.#stop.signal;
  }

  stop(): void {
    const { name } = this.config;
    this.#stop.abort(
      new HoldfastError('HF_STOPPING', `${name} is being stopped`, 'Start it again when it is.'),
    );
    this.wake();
  }

  say(type: string, message: string, data: Record<string, unknown> = {}): void {
    this.log.append(type, this.config.name, message, data);
  }

  /** As `say`, of many at once. */
  sayAll(events: NewEvent[]): void {
    this.log.appendAll(this.config.name, events);
  }

  /** All that was ever said, of every service, oldest first. */
  past(): AsyncIterable<HoldfastEvent> {
    return this.log.since(1);
  }

  /** Changes the phase; an event tells of each change, not of a new reason for the same. */
  become(phase: ServicePhase, reason?: string): void {
    const changed = phase !== this.phase;
    this.phase = phase;
    this.reason = reason;
    if (phase === 'protected' && this.history.started()) this.save();
    if (changed) this.say(`service.${phase}`, reason ?? describe(this), { guests: this.#roles() });
  }

  guests(): { guest: GuestVm; role: GuestRole }[] {
    return GUEST_ROLES.flatMap(role => {
      const guest = this[role];
      return guest ? [{ guest, role }] : [];
    });
  }

  /** Names of those services of the active guest that somebody inside has stopped on purpose, as it says. */
  get stoppedServices(): string[] {
    const { services } = this.maker.image;
    const words = this.primary?.channel.services(services.length) ?? [];
    return words.flatMap(({ service, isStopped }) => (isStopped ? [services[service]!.name] : []));
  }

  guestIn(slot: number): GuestVm | undefined {
    const all = [...this.guests().map(({ guest }) => guest), this.booting, this.failedBackup];
    return all.find(guest => guest?.slot === slot);
  }

  /** Defines a fresh guest in a free slot of the data path. It is fenced. */
  async makeGuest(): Promise<GuestVm> {
    const slot = SLOTS.find(candidate => this.guestIn(candidate) === undefined);
    if (slot === undefined) {
      throw new HoldfastError(
        'HF_SLOTS',
        'all slots of the data path are taken',
        'This is a defect: report it.',
      );
    }
    const generation = this.generation++;
    this.save();
    const guest = await this.maker.make(generation, slot);
    this.path.attachGuest(slot, guest.ifindex);
    return guest;
  }

  async removeGuest(guest: GuestVm): Promise<void> {
    for (const { guest: candidate, role } of this.guests()) {
      if (candidate === guest) this[role] = undefined;
    }
    this.path.detachGuest(guest.slot);
    await this.maker.unmake(guest);
    if (this.failedBackup === guest) this.failedBackup = undefined;
  }

  /** A number that no guest of this service has had. */
  nextEpoch(): number {
    return ++this.epoch;
  }

  /** Makes one ahead of the next recovery. */
  readyReplayer(): Promise<void> {
    return this.#alone(async () => {
      this.replayer ??= await this.#prepareReplayer();
    });
  }

  /** A replayer serves once: no half-open socket of an earlier replay can speak in a later one. Waits for who has it. */
  withReplayer(use: (replayer: Replayer) => Promise<void>): Promise<void> {
    return this.#alone(async () => {
      const replayer = this.replayer ?? (await this.#prepareReplayer());
      this.replayer = replayer;
      try {
        await use(replayer);
      } finally {
        this.replayer = undefined;
        await replayer.dispose();
      }
    });
  }

  #alone(act: () => Promise<void>): Promise<void> {
    const turn = this.#replaying.then(act);
    this.#replaying = turn.catch(() => {});
    return turn;
  }

  #prepareReplayer(): Promise<Replayer> {
    return Replayer.prepare(this.path, {
      namespace: this.names.replayNamespace,
      device: this.names.replayDevice,
      ...hostAddresses(this.config),
      guestMac: serviceMac(this.config),
      masks: this.config.recovery.masks,
      spillDirectory: spillDirectory(this.config, this.files),
    });
  }

  /** The primary is lost: from the first line on nothing that it sends goes out. The first cause wins. */
  primaryFailed(cause: Fault['cause'], detail: string, detectedAt: number): void {
    const { primary } = this;
    if (!primary || this.fault || this.stopped.aborted) return;
    this.path.fence(primary.slot);
    primary.state = 'crashed';
    // A drill's fault that was first met in place.
    const faultAt = this.drillAt ?? this.crashed?.faultAt;
    this.fault = { cause, detail, detectedAt, fencedAt: now(), faultAt };
    this.drillAt = undefined;
    this.history.failed(cause, detail, detectedAt);
    this.say('fault.detected', `${cause}: ${detail}`, { guest: primary.name, ...this.fault });
    if (!this.backup) this.waitForGuest(detail);
    this.wake();
  }

  /** `guest` serves no more, whichever of the two that serve in a migration it is. */
  guestFailed(guest: GuestVm, cause: Fault['cause'], detail: string, detectedAt: number): void {
    if (guest === this.leaving) this.leavingFailed(guest, detail);
    else if (guest === this.primary) this.primaryFailed(cause, detail, detectedAt);
  }

  /** There are held flows although the primary is well. */
  replayLate(): void {
    this.lateFlows = true;
    this.wake();
  }

  /** The guest that was being left is lost: what it still had is held, and replayed into the primary. */
  leavingFailed(guest: GuestVm, detail: string): void {
    if (this.leaving !== guest || this.stopped.aborted) return;
    this.path.fence(guest.slot);
    guest.state = guest.state === 'off' ? 'off' : 'crashed';
    this.leaving = undefined;
    this.failedBackup = guest;
    this.lateFlows = true;
    this.say('migration.interrupted', `${guest.name} is lost before all had left it: ${detail}`, {
      guest: guest.name,
    });
    this.wake();
  }

  /** The primary is lost and nothing can take over now. */
  waitForGuest(detail: string): void {
    this.become('recovering', `${detail}; no backup was ready, connections are held until one is`);
  }

  /** The backup died in its sleep: the service runs on, and the upkeep makes another. */
  backupFailed(backup: GuestVm): void {
    this.backup = undefined;
    this.failedBackup = backup;
    this.become('unprotected', `the backup ${backup.name} is lost: ${backup.failure}`);
    this.wake();
  }

  /** An operator wants another backup: the upkeep removes this one and boots the next. */
  replaceBackup(backup: GuestVm): void {
    this.backup = undefined;
    this.failedBackup = backup;
    this.become('unprotected', `${backup.name} is replaced by a fresh backup`);
    this.wake();
  }

  /** Changes what the active guest may ask for. */
  grant(operations: Iterable<BackupOperation>, granted: boolean): void {
    for (const operation of operations) {
      if (granted) this.grants.add(operation);
      else this.grants.delete(operation);
    }
    this.save();
    const list = this.granted;
    const what = list.length === 0 ? 'no operation' : list.join(', ');
    this.say('grant.changed', `the active guest may use ${what} on its backup`, { operations: list });
  }

  get granted(): BackupOperation[] {
    return BACKUP_OPERATIONS.filter(operation => this.grants.has(operation));
  }

  save(): void {
    const guests = this.guests().map(({ guest: { name, slot }, role }) => ({ name, slot, role }));
    const state: SavedService = {
      name: this.config.name,
      ...this.given,
      epoch: this.epoch,
      generation: this.generation,
      guests,
      history: this.history.saved,
      ...(this.migration && { migration: this.migration }),
      grants: this.granted,
      ...(this.holder && { holder: this.holder.name }),
    };
    this.files.save(state);
  }

  /** Lets the upkeep look again. */
  wake(): void {
    this.#wake();
  }

  /** Resolves at the next `wake`, or after `ms`. */
  nap(ms?: number): Promise<void> {
    return new Promise(resolve => {
      const timer = ms === undefined ? undefined : setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #roles(): Record<string, string> {
    return Object.fromEntries(this.guests().map(({ guest, role }) => [role, guest.name]));
  }
}

function describe({ phase, primary, backup }: Protection): string {
  if (phase === 'protected') return `${primary?.name} is active, ${backup?.name} waits suspended`;
  return phase;
}
