import type { Flow } from '../../hypervisor-shim/datapath/layout.generated.js';
import { isRoomMade } from '../../hypervisor-shim/spill/lease.js';
import { connectionStatus, logRoom, whyUnlogged } from '../service/flows.js';
import type { JanitorCharge } from './janitor.js';

/** With so much of the log free again it is said to have room: a log at the brink makes one event, not thousands. */
const ROOM = 0.1;

/** A flow, and a name that no other flow ever has. */
export interface Entry {
  key: string;
  flow: Flow;
}

/** Tells when the log fills and when it has room again, which connections went on without it, and which wait for their share. */
export class LogWatch {
  #refused: number | undefined;
  readonly #said = new Set<string>();

  constructor(private readonly p: JanitorCharge) {}

  /** After each round through the flow table, with the flows that are not logged any more, and those that wait. */
  round(unlogged: Entry[], waiting: Entry[]): void {
    this.#level();
    for (const entry of unlogged) {
      const why = whyUnlogged(entry.flow);
      this.#say(
        'connection.unprotected',
        entry,
        why,
        `goes on outside the log: ${why}; the next fault ends it`,
      );
    }
    for (const entry of waiting) {
      const why = `its ${this.p.config.log.perConnectionMiB} MiB of the log are used up`;
      this.#say('connection.limited', entry, why, `waits: ${why}`);
    }
    const present = new Set([...unlogged.map(e => `u${e.key}`), ...waiting.map(e => `w${e.key}`)]);
    for (const key of this.#said) if (!present.has(key)) this.#said.delete(key);
  }

  /** Once for each connection. */
  #say(
    type: 'connection.unprotected' | 'connection.limited',
    { key, flow }: Entry,
    reason: string,
    what: string,
  ) {
    const name = `${type === 'connection.limited' ? 'w' : 'u'}${key}`;
    if (this.#said.has(name)) return;
    this.#said.add(name);
    const { client, port } = connectionStatus(this.p, flow);
    this.p.say(type, `${client} to port ${port} ${what}`, { client, port, reason });
  }

  #level(): void {
    const { p } = this;
    const stats = p.path.stats();
    const room = logRoom(p);
    const refused = stats.DROP_LOG_FULL + stats.UNLOGGED;
    // What an earlier supervisor saw it has told, unless it is still so.
    // While segments are being spilled, a client that was too quick is only held up for a moment.
    const news =
      !isRoomMade(p.path.control) &&
      (this.#refused === undefined ? refused > 0 && room < ROOM : refused > this.#refused);
    this.#refused = refused;
    const { onFull } = p.config.log;
    if (!p.logFull && news) {
      p.logFull = true;
      const what = onFull === 'backpressure' ? 'wait until there is room' : 'go on unprotected';
      p.say('log.full', `the log is full: connections that need more of it ${what}`, { onFull, room });
    } else if (p.logFull && !news && room >= ROOM) {
      p.logFull = false;
      p.say('log.room', `${Math.floor(100 * room)}% of the log is free again`, { onFull, room });
    }
  }
}
