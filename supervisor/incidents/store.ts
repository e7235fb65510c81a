import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeDirectories } from '../../hypervisor-shim/directories.js';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import * as schemas from '../api/schemas.js';
import type { HoldfastEvent, Incident, IncidentDetail } from '../api/types.js';
import { SERVICE_NAME } from '../config/service-name.js';
import type { EventLog } from '../events/event-log.js';
import { incidentsOf } from '../service/state-file.js';
import { IncidentFold } from './fold.js';

/** What an incident may still get after its report. */
const NEWS = /^(recovery\.done|guest\.(console|dumped)|service\.protected)$/;
/** News come together: the report, the console, the dump, ms. */
const GATHER_MS = 500;

/**
 * Incidents of all services. The event log tells of them; and as it forgets after some 32 MiB, each is also written to a file of its
 * own once it has its report, so that a service with ten thousand connections keeps more than the last few.
 */
export class IncidentStore {
  readonly #writing = new Map<string, NodeJS.Timeout>();

  constructor(
    private readonly stateDir: string,
    private readonly log: EventLog,
  ) {
    log.listen(event => this.#hear(event));
  }

  /** Oldest first; also of services that are down. */
  async list(service?: string): Promise<Incident[]> {
    return (await this.#all(service)).map(({ verdicts: _, ...incident }) => incident);
  }

  /** Throws `HF_INCIDENT_UNKNOWN`. */
  async detail(service: string, id: number): Promise<IncidentDetail> {
    const found = (await this.#all(service)).find(incident => incident.id === id);
    if (found) return found;
    throw new HoldfastError(
      'HF_INCIDENT_UNKNOWN',
      `${service} has no incident ${id}`,
      `Look at \`holdfast incidents ${service}\` for those there are; the oldest are forgotten (incidents.keep).`,
    );
  }

  /** What is to be written, is. */
  close(): void {
    for (const timer of this.#writing.values()) clearTimeout(timer);
    this.#writing.clear();
  }

  async #all(service: string | undefined): Promise<IncidentDetail[]> {
    const told = await this.#told(service);
    const isTold = (kept: Incident) =>
      told.some(({ id, service: of }) => id === kept.id && of === kept.service);
    const kept = this.#kept(service).filter(incident => !isTold(incident));
    // Of one whose beginning the log has forgotten, the file knows more.
    const partial = ({ service: of, timeline: { detectedAt } }: Incident) =>
      kept.some(it => it.service === of && it.timeline.detectedAt === detectedAt);
    return [...kept, ...told.filter(incident => !partial(incident))]
      .sort((a, b) => a.timeline.detectedAt - b.timeline.detectedAt)
      .map(({ consoleFile, dumpFile, ...rest }) => ({
        ...rest,
        ...(consoleFile !== undefined && existsSync(consoleFile) && { consoleFile }),
        ...(dumpFile !== undefined && existsSync(dumpFile) && { dumpFile }),
      }));
  }

  async #told(service: string | undefined): Promise<IncidentDetail[]> {
    const fold = new IncidentFold();
    for await (const event of this.log.since(1)) {
      if (service === undefined || event.service === service) fold.add(event);
    }
    return fold.incidents;
  }

  #kept(service: string | undefined): IncidentDetail[] {
    const services = service === undefined ? namesIn(join(this.stateDir, 'incidents')) : [service];
    return services
      .filter(name => SERVICE_NAME.test(name))
      .flatMap(name => {
        const directory = incidentsOf(this.stateDir, name);
        const files = namesIn(directory).filter(file => /^\d+\.json$/.test(file));
        return files.flatMap(file => read(join(directory, file)) ?? []);
      });
  }

  #hear({ service, type }: HoldfastEvent): void {
    if (service === undefined || !NEWS.test(type) || this.#writing.has(service)) return;
    // Within an append, perhaps of a recovery: later.
    const write = () => {
      this.#writing.delete(service);
      void this.#write(service).catch(error => {
        this.log.append('incidents.trouble', service, `a report was not kept: ${(error as Error).message}`);
      });
    };
    this.#writing.set(service, setTimeout(write, GATHER_MS).unref());
  }

  async #write(service: string): Promise<void> {
    const kept = new Map(this.#kept(service).map(incident => [incident.id, incident]));
    const newest = Math.max(0, ...[...kept.values()].map(({ timeline }) => timeline.detectedAt));
    for (const incident of await this.#told(service)) {
      const { recoveredAt, detectedAt } = incident.timeline;
      // Fields in the order in which `kept` has them.
      const text = JSON.stringify(schemas.incidentDetail.parse(incident));
      const before = kept.get(incident.id);
      // An older one that is not there had to make room.
      const isNews = before ? JSON.stringify(before) !== text : detectedAt > newest;
      if (recoveredAt === undefined || !isNews) continue;
      const directory = incidentsOf(this.stateDir, service);
      const path = join(directory, `${incident.id}.json`);
      makeDirectories(directory, 0o700);
      writeFileSync(`${path}.new`, text, { mode: 0o600 });
      renameSync(`${path}.new`, path);
    }
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Undefined if it is damaged. */
function read(file: string): IncidentDetail | undefined {
  try {
    return schemas.incidentDetail.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return undefined;
  }
}
