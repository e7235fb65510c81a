import type { JanitorCharge } from './janitor.js';

/** With so many records free again the table is said to have room. */
const ROOM = 0.05;

/** Tells when new connections find the flow table full, and when there is room again: once each, however many are turned away. */
export class TableWatch {
  #full = false;
  #refused: number | undefined;

  constructor(private readonly p: JanitorCharge) {}

  /** After each round through the flow table. */
  round(): void {
    const { p } = this;
    const { DROP_TABLE_FULL, OPENED, CLOSED } = p.path.stats();
    const max = p.path.maxFlows;
    const free = (max - (OPENED - CLOSED)) / max;
    // What an earlier supervisor saw it has told, unless it is still so.
    const news =
      this.#refused === undefined ? DROP_TABLE_FULL > 0 && free < ROOM : DROP_TABLE_FULL > this.#refused;
    this.#refused = DROP_TABLE_FULL;
    const { onFull } = p.config.connections;
    if (!this.#full && news) {
      this.#full = true;
      const what = onFull === 'wait' ? 'get no answer' : 'are refused';
      p.say('connections.full', `${max} connections are open: new ones ${what}`, { max, onFull });
    } else if (this.#full && !news && free >= ROOM) {
      this.#full = false;
      p.say('connections.room', 'new connections find room again', { max, onFull });
    }
  }
}
