import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a later daemon must know of a service: to take it down, and one day to adopt it. */
export interface SavedService {
  name: string;
  /** The configuration as it was given, and the file it came from. */
  config: string;
  source: string;
  /** Highest epoch given so far; flows and slots may carry one that is higher by one. */
  epoch: number;
  /** Guests made so far: names are never used twice. */
  generation: number;
  guests: { name: string; slot: number; role: 'primary' | 'backup' | 'former' }[];
}

/** Places of a service below the state directory. */
export class ServiceFiles {
  readonly #services: string;

  constructor(
    stateDir: string,
    readonly service: string,
  ) {
    this.#services = join(stateDir, 'services');
  }

  /** Overlay disks and consoles. */
  get directory(): string {
    return join(this.#services, this.service);
  }
  /** Memory dumps, which outlive the service. */
  get dumps(): string {
    return join(this.#services, '..', 'dumps');
  }
  get #state(): string {
    return `${this.directory}.json`;
  }

  /** Replaces the state file as a whole. */
  save(state: SavedService): void {
    mkdirSync(this.#services, { recursive: true });
    writeFileSync(`${this.#state}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
    renameSync(`${this.#state}.new`, this.#state);
  }

  load(): SavedService | undefined {
    try {
      return JSON.parse(readFileSync(this.#state, 'utf8')) as SavedService;
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

/** Names of the services that have a state file. */
export function savedServices(stateDir: string): string[] {
  try {
    return readdirSync(join(stateDir, 'services')).flatMap(file => /^(.+)\.json$/.exec(file)?.[1] ?? []);
  } catch {
    return [];
  }
}
