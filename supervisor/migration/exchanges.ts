import { hostPort } from '../../hypervisor-shim/datapath/addresses.js';
import type { DataPath } from '../../hypervisor-shim/datapath/datapath.js';
import { type Flow, OP, RESULT } from '../../hypervisor-shim/datapath/layout.generated.js';
import { minPosition } from '../../hypervisor-shim/datapath/positions.js';
import { Http1 } from '../../hypervisor-shim/protocols/http1.js';
import type { Boundary, Stream, Tracker } from '../../hypervisor-shim/protocols/stream.js';

/** Protocols in which it can be told where one exchange ends and the next begins. */
const TRACKERS = { http: (from: Boundary): Tracker => new Http1(from) };
export type Protocol = keyof typeof TRACKERS;

/** One call of the control program gives back so much; a boundary may free thousands. */
const TRIM_CALLS = 100_000;

/** Knows of each connection of a service where its last exchange ended, if its port has a protocol that is known. */
export class Exchanges {
  #trackers = new Map<string, Tracker>();
  #seen = new Set<string>();

  /** @param protocols by port */
  constructor(
    private readonly path: DataPath,
    private readonly protocols: Readonly<Record<number, Protocol>>,
  ) {}

  /** Whether exchanges can be told from one another on this connection, which `boundary` was asked about. */
  follows(id: number, flow: Flow): boolean {
    return this.#trackers.get(`${id}.${flow.generation}`)?.isKnown === true;
  }

  /** The last place at which nothing was under way. Nothing at all has been said on a new connection, whatever its protocol is. */
  boundary(id: number, flow: Flow): Boundary | undefined {
    if (flow.in_end === flow.in_base && flow.out_sent === flow.out_base)
      return { in: flow.in_base, out: flow.out_base };
    const protocol = this.protocols[hostPort(flow.key.lport)];
    if (!protocol || flow.unlogged) return undefined;
    const key = `${id}.${flow.generation}`;
    this.#seen.add(key);
    let tracker = this.#trackers.get(key);
    if (!tracker) {
      tracker = TRACKERS[protocol]({ in: flow.in_base, out: flow.out_base });
      this.#trackers.set(key, tracker);
    }
    return tracker.follow(this.#input(id, flow), this.#output(id, flow));
  }

  /** Gives back what the log has of exchanges that are over: a replay begins behind them. */
  trim(id: number, flow: Flow): void {
    const boundary = this.boundary(id, flow);
    if (!boundary || boundary.in <= flow.in_base || boundary.out > flow.out_acked || boundary.in > flow.g_ack)
      return;
    let result: number = RESULT.AGAIN;
    for (let i = 0; i < TRIM_CALLS && result === RESULT.AGAIN; i++)
      result = this.path.transition(OP.TRIM, id, flow.generation, { in_end: boundary.in, out: boundary.out });
  }

  /** Forgets connections that `boundary` was not asked about since the last call. */
  tidy(): void {
    for (const key of this.#trackers.keys()) if (!this.#seen.has(key)) this.#trackers.delete(key);
    this.#seen = new Set();
  }

  #input(id: number, flow: Flow): Stream {
    const read = (from: bigint, most: number): Uint8Array => {
      const until = minPosition(flow.in_end, from + BigInt(most));
      const pieces: Uint8Array[] = [];
      for (let at = from; at < until; ) {
        const piece = this.path.log.input(id, at, until);
        if (!piece) break;
        pieces.push(piece.bytes.subarray(piece.offset, piece.offset + piece.length));
        at += BigInt(piece.length);
      }
      return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
    };
    return { end: flow.in_end, read };
  }

  #output(id: number, flow: Flow): Stream {
    const read = (from: bigint, most: number): Uint8Array => {
      const known = Number(minPosition(flow.out_sent - from, BigInt(most)));
      return this.path.log.output(id, from, Math.max(0, known));
    };
    return { end: flow.out_sent, read };
  }
}
