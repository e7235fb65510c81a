import { resetToClient, resetToGuest } from '../../hypervisor-shim/datapath/frames.js';
import { type Flow, OP, RESULT, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { UNSET } from '../../hypervisor-shim/datapath/positions.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { connectionStatus } from '../service/flows.js';
import type { Protection } from '../service/protection.js';

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

  constructor(private readonly p: Protection) {}

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
    for (const { id, flow } of p.path.flows()) {
      if (flow.state === STATE.CLOSED) continue;
      if (flow.state === STATE.DIVERGED) this.#reset(id, flow);
      // Nobody replays now, so what is half replayed was left so.
      else if (!p.path.inCurrentEpoch(flow) || flow.state === STATE.REPLAYING)
        held.add(`${id}.${flow.generation}`);
      else if (abandoned(flow)) p.path.transition(OP.CLOSE, id, flow.generation);
    }
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
    const { p } = this;
    if (p.path.transition(OP.CLOSE, id, flow.generation) !== RESULT.DONE) return;
    const address = new Uint8Array(new Uint32Array([p.path.control.addr4]).buffer);
    const ends = { guestMac: p.path.control.guest_mac.slice(0, 6), address };
    const owner = p.guestIn(flow.owner);
    if (this.#packets !== undefined) {
      native.packetSend(this.#packets, p.path.control.wire_ifindex, resetToClient(flow, ends));
      if (owner) native.packetSend(this.#packets, owner.ifindex, resetToGuest(flow, ends));
    }
    const { client, port } = connectionStatus(p, flow);
    const reason = `output differs from what was sent, at byte ${flow.diverged_at}`;
    p.say('connection.lost', `${client} to port ${port}: ${reason}`, {
      client,
      port,
      reason,
      epoch: flow.epoch,
    });
  }
}
