import type { HoldfastEvent, IncidentDetail, RecoveryCause, Verdict } from '../api/types.js';

/** What the machine itself, or the hypervisor, said about a failure. */
const EVIDENCE = /^guest\.(panicked|gone|shutdown|watchdog|application)$/;
/** Of a guest that says the same for ever. */
const MOST_EVIDENCE = 50;

type Open = Omit<IncidentDetail, 'verdicts' | 'kept' | 'lost'> & { verdicts: Map<string, Verdict> };
type Data = HoldfastEvent['data'];

/**
 * Makes incidents of the event log, one event after the other; what it is given may begin and end anywhere. An incident begins with
 * `fault.detected`, is over with the report of a recovery, and settled when the service is protected again.
 */
export class IncidentFold {
  readonly #all: Open[] = [];
  /** Those that wait for a report, and the last that got one: by service, oldest first. */
  readonly #open = new Map<string, Open[]>();
  readonly #last = new Map<string, Open>();
  /** Names of guests are used again by the next service of the same name, which begins at this place of `#all`. */
  readonly #lives = new Map<string, number>();

  add(event: HoldfastEvent): void {
    const { service, type, at, data } = event;
    if (service === undefined) return;
    const last = this.#last.get(service);
    if (type === 'fault.detected') this.#detected(event);
    else if (type === 'recovery.started') this.#started(event);
    else if (type === 'recovery.done') this.#done(service, at, data);
    else if (type === 'service.starting' || type === 'service.down') this.#end(service);
    else if (last === undefined) return;
    else if (type === 'connection.kept' || type === 'connection.lost') judge(last, event);
    else if (type === 'service.protected' && last.outcome === 'recovered') last.timeline.protectedAt ??= at;
    else this.#about(event);
  }

  /** So far, oldest first. */
  get incidents(): IncidentDetail[] {
    return this.#all.map(({ verdicts, ...rest }) => {
      const list = [...verdicts.values()];
      const lost = list.filter(({ outcome }) => outcome === 'lost').length;
      return { ...rest, kept: list.length - lost, lost, verdicts: list };
    });
  }

  #detected(event: HoldfastEvent): void {
    const { data } = event;
    const before = this.#open.get(event.service!)?.at(-1);
    // A supervisor that died before it could act is followed by one that finds the same.
    if (before && before.guest === data.guest && before.timeline.takeoverAt === undefined) return;
    this.#begin(event);
  }

  #begin({ seq, service, at, data, message }: HoldfastEvent): Open {
    const detectedAt = moment(data.detectedAt) ?? at;
    const incident: Open = {
      id: seq,
      service: service!,
      cause: (data.cause as RecoveryCause | undefined) ?? 'guest-gone',
      detail: typeof data.detail === 'string' ? data.detail : message,
      guest: text(data.guest),
      outcome: 'open',
      timeline: { faultAt: moment(data.faultAt), detectedAt, fencedAt: moment(data.fencedAt) ?? detectedAt },
      evidence: [],
      verdicts: new Map(),
    };
    this.#all.push(incident);
    this.#last.set(service!, incident);
    this.#open.set(service!, [...(this.#open.get(service!) ?? []), incident]);
    return incident;
  }

  /** Of a log whose beginning is lost, or of an older version, this may be the first word of it. */
  #started(event: HoldfastEvent): void {
    const { service, at, data } = event;
    const waiting = this.#open.get(service!)?.at(-1);
    const incident =
      waiting?.timeline.takeoverAt === undefined && waiting
        ? waiting
        : this.#begin({ ...event, data: { ...data, guest: data.from } });
    incident.timeline.takeoverAt = at;
    incident.successor = text(data.to);
    incident.epoch = moment(data.epoch);
  }

  /** A second fault in the midst of a recovery: one report for both, and in it the last word on each connection. */
  #done(service: string, at: number, data: Data): void {
    const open = this.#open.get(service);
    const last = open?.at(-1);
    if (!open || !last) return;
    for (const earlier of open.slice(0, -1)) {
      last.verdicts = new Map([...earlier.verdicts, ...last.verdicts]);
      Object.assign(earlier, { outcome: 'superseded', supersededBy: last.id });
    }
    last.outcome = 'recovered';
    last.epoch = moment(data.epoch) ?? last.epoch;
    Object.assign(last.timeline, {
      resumedAt: moment(data.resumedAt),
      firstSpliceAt: moment(data.firstSpliceAt),
      lastSpliceAt: moment(data.lastSpliceAt),
      recoveredAt: at,
    });
    this.#open.delete(service);
  }

  #end(service: string): void {
    for (const incident of this.#open.get(service) ?? []) incident.outcome = 'abandoned';
    this.#open.delete(service);
    this.#last.delete(service);
    this.#lives.set(service, this.#all.length);
  }

  #about({ service, type, at, message, data }: HoldfastEvent): void {
    const life = this.#all.slice(this.#lives.get(service!) ?? 0);
    const incident = life.findLast(it => it.service === service && it.guest === data.guest);
    if (!incident || data.guest === undefined) return;
    if (type === 'guest.console') incident.consoleFile = text(data.file);
    else if (type === 'guest.dumped') incident.dumpFile = text(data.file);
    else if (EVIDENCE.test(type) && incident.evidence.length < MOST_EVIDENCE) {
      incident.evidence.push({ at, type, message });
    }
  }
}

/** The last word counts: a connection that was spliced to a guest that then died is judged again. */
function judge(incident: Open, { type, data }: HoldfastEvent): void {
  const at = moment(data.at);
  const spliced = data.code === 'spliced' && at !== undefined;
  const verdict = {
    client: String(data.client),
    port: Number(data.port),
    outcome: type === 'connection.kept' ? 'kept' : 'lost',
    code: data.code,
    reason: String(data.reason),
    inputBytes: Number(data.inputBytes),
    outputBytes: Number(data.outputBytes),
    spliceMs: spliced ? at - incident.timeline.detectedAt : undefined,
  } as Verdict;
  incident.verdicts.set(`${data.flow} ${data.client}`, verdict);
}

const moment = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);
const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
