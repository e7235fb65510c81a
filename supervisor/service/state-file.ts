import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { BACKUP_OPERATIONS, type BackupOperation } from '../../guest-agent/wire/control-page.js';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import { GUEST_ROLES, migrationPlan, serviceStatus } from '../api/schemas.js';
import type { GuestRole, MigrationPlan } from '../api/types.js';
import { checkedName, SERVICE_NAME } from '../config/service-name.js';
import type { SavedHistory } from './history.js';

/** What a later daemon must know of a service: to take it down, and one day to adopt it. */
export interface SavedService {
  name: string;
  /** The configuration as it was given, and the file it came from. */
  config: string;
  source: string;
  /** Place of the image that its guests are made of: to find it again may take a build. */
  image?: string;
  /** Highest epoch given so far; flows and slots may carry one that is higher by one. */
  epoch: number;
  /** Guests made so far: names are never used twice. */
  generation: number;
  /** The only guest that may write to storage that lasts. */
  holder?: string;
  guests: { name: string; slot: number; role: GuestRole }[];
  /** A planned change that is wanted, or under way. */
  migration?: MigrationPlan;
  history?: SavedHistory;
  /** What the active guest may ask for. */
  grants?: BackupOperation[];
  /** Of the host, by its kernel: what was saved in another has ended with that. */
  boot?: string;
}

/** What a service is made of, kept for a successor of its daemon. */
export type Given = Required<Pick<SavedService, 'config' | 'source' | 'image'>>;

/** The past is for people to read; damaged, it is forgotten. */
const savedHistory = serviceStatus
  .pick({ startedAt: true, lastFault: true, lastRecoveryAt: true, recoveriesByCause: true })
  .partial()
  .optional()
  .catch(undefined);

/** Checked as far as the rest relies on it: a disk error must not become a guest with a strange name. */
const savedService = z.looseObject({
  name: z.string(),
  config: z.string(),
  source: z.string(),
  epoch: z.int(),
  generation: z.int(),
  holder: z.string().optional(),
  history: savedHistory,
  migration: migrationPlan.optional().catch(undefined),
  boot: z.string().optional(),
  // Of a newer version, or damaged: none.
  grants: z.array(z.enum(BACKUP_OPERATIONS)).optional().catch(undefined),
  image: z.string().optional(),
  guests: z.array(
    z.object({
      name: z.string(),
      slot: z.int().min(0).max(3),
      role: z.enum(GUEST_ROLES),
    }),
  ),
});

/** Places of a service below the state directory. */
export class ServiceFiles {
  readonly #services: string;

  /** Throws `HF_SERVICE_UNKNOWN` for what is no name: paths are made of it. */
  constructor(
    stateDir: string,
    readonly service: string,
  ) {
    checkedName(service);
    this.#services = join(stateDir, 'services');
  }

  /** Overlay disks and consoles. */
  get directory(): string {
    return join(this.#services, this.service);
  }
  /** What is kept of faults, which outlives the service. */
  get incidents(): string {
    return incidentsOf(join(this.#services, '..'), this.service);
  }
  get #state(): string {
    return `${this.directory}.json`;
  }

  /** Replaces the state file as a whole. */
  save(given: SavedService): void {
    const state = { boot: hostBoot(), ...given };
    makeDirectories(this.#services);
    writeFileSync(`${this.#state}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
    renameSync(`${this.#state}.new`, this.#state);
  }

  /** Undefined if there is none, or it is damaged. */
  load(): SavedService | undefined {
    try {
      return savedService.parse(JSON.parse(readFileSync(this.#state, 'utf8'))) as SavedService;
    } catch {
      return undefined;
    }
  }

  remove(): void {
    for (const path of [this.directory, this.#state, `${this.#state}.new`]) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}

export const incidentsOf = (stateDir: string, service: string): string =>
  join(stateDir, 'incidents', service);

/** Whether the host has been started anew since: no guest, no data path and no connection of then is left. */
export const hostRestarted = ({ boot }: SavedService): boolean => boot !== undefined && boot !== hostBoot();

const hostBoot = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();

/** Names of the services that have a state file. */
export function savedServices(stateDir: string): string[] {
  try {
    const files = readdirSync(join(stateDir, 'services'));
    const names = files.flatMap(file => /^(.+)\.json$/.exec(file)?.[1] ?? []);
    return names.filter(name => SERVICE_NAME.test(name));
  } catch {
    return [];
  }
}
