import { type Flow, OP, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { UNSET } from '../../hypervisor-shim/datapath/positions.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { divergenceOf } from '../../hypervisor-shim/replay/divergence.js';
import type { FlowOwners } from '../service/flows.js';
import type { Protection } from '../service/protection.js';
import { endLost } from './end-lost.js';
import { type Entry, LogWatch } from './log-watch.js';
import { TableWatch } from './table-watch.js';

/** What the janitor looks after, and may touch. */
export type JanitorCharge = Omit<FlowOwners, 'guestIn'> &
  Pick<Protection, 'replaying' | 'fault' | 'exchanges' | 'lateFlows' | 'logFull' | 'wake' | 'say'> & {
    primary: { state: string } | undefined;
    guestIn(slot: number): { name: string; ifindex: number } | undefined;
  };

const PERIOD_MS = 500;
/** How long a closed flow still answers for its connection; and when more than half of the table is in use. */
const LINGER_NS = 10_000_000_000n;
const LINGER_CROWDED_NS = 500_000_000n;

/** A guest forgets a connection that it has closed after a minute (FIN_WAIT2), and says nothing to anybody. */
const ABANDONED_NS = 150_000_000_000n;

/** Closed by the guest, and no frame of the client for so long that the guest has forgotten it. */
function abandoned(flow: Flow): boolean {
  return flow.fin_out !== UNSET && process.hrtime.bigint() - flow.last_in_ns > ABANDONED_NS;
}

/** Goes through the flow table now and then, for what no event announces. */
export class Janitor {
  #timer: NodeJS.Timeout | undefined;
  #packets: number | undefined;
  /** Held flows that were there at the last round. */
  #held = new Set<string>();

  readonly #log: LogWatch;
  readonly #table: TableWatch;

  constructor(private readonly p: JanitorCharge) {
    this.#log = new LogWatch(p);
    this.#table = new TableWatch(p);
  }

  start(): void {
    this.#packets = native.packetSocket();
    this.#timer = setInterval(() => this.#round(), PERIOD_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#packets !== undefined) native.closeFd(this.#packets);
    this.#packets = undefined;
  }

  #round(): void {
    const { p } = this;
    // A replay moves flows through the same states, and judges them itself.
    if (p.replaying) return;
    const { OPENED, CLOSED } = p.path.stats();
    p.path.reap(OPENED - CLOSED > p.path.maxFlows / 2 ? LINGER_CROWDED_NS : LINGER_NS);
    const held = new Set<string>();
    const unlogged: Entry[] = [];
    const waiting: Entry[] = [];
    for (const { id, flow } of p.path.flows()) {
      if (flow.state === STATE.CLOSED) continue;
      if (flow.unlogged) unlogged.push({ key: `${id}.${flow.generation}`, flow });
      else if (flow.share_used) waiting.push({ key: `${id}.${flow.generation}`, flow });
      if (flow.state === STATE.DIVERGED) this.#reset(id, flow);
      // Nobody replays now, so what is half replayed was left so.
      else if (!p.path.inCurrentEpoch(flow) || flow.state === STATE.REPLAYING)
        held.add(`${id}.${flow.generation}`);
      else if (abandoned(flow)) p.path.transition(OP.CLOSE, id, flow.generation);
      else p.exchanges.trim(id, flow);
    }
    p.exchanges.tidy();
    this.#log.round(unlogged, waiting);
    this.#table.round();
    // Twice in a row: a handshake that has just ended may be on its way into the table.
    const late = [...held].some(key => this.#held.has(key));
    this.#held = held;
    if (late && p.primary?.state === 'active' && !p.fault && !p.lateFlows) {
      p.lateFlows = true;
      p.wake();
    }
  }

  /** The client has bytes that this guest would never have sent: neither side may go on believing in the connection. */
  #reset(id: number, flow: Flow): void {
    if (this.#packets !== undefined) endLost(this.p, this.#packets, { id, flow }, divergenceOf(flow));
  }
}
