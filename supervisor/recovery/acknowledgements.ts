import { forgedAcks } from '../../hypervisor-shim/datapath/frames.js';
import { Flow, STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { UNSET } from '../../hypervisor-shim/datapath/positions.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { hostAddresses } from '../config/config.js';
import type { GuestVm } from '../service/guest.js';
import type { Protection } from '../service/protection.js';
import type { Deafness } from './evidence.js';

/** Longer than the 500 ms in which a kernel answers one probe of a connection only (tcp_invalid_ratelimit). */
const PERIOD_MS = 1000;
/** Of the guest's heartbeat in a period: half of those that there are in a healthy guest. */
const BEATS = 50;
/** Connections asked in one round. */
const ASK = 3;

/** A connection with input that the guest has not acknowledged. */
interface Waiting {
  acked: bigint;
  packetsOut: bigint;
  lastIn: bigint;
}

/**
 * Finds a guest whose kernel answers ARP but no client: bytes wait in the log, their client repeats them, and nothing is
 * acknowledged on any connection. A socket whose owner does not read is no such case, so the guest is asked by a keep-alive
 * probe, which every kernel answers that has the connection. Looks at the flow table once in a second, never at a packet.
 */
export class Acknowledgements {
  #lastAt = 0;
  #beat = 0n;
  #waiting = new Map<string, Waiting>();
  #asked = new Set<string>();
  #deaf: Deafness = { asked: 0, unansweredMs: 0 };
  #since = 0;
  readonly #socket = native.packetSocket();

  constructor(
    private readonly p: Protection,
    private readonly guest: GuestVm,
  ) {}

  close(): void {
    native.closeFd(this.#socket);
  }

  look(at: number, beat: bigint): Deafness {
    if (at - this.#lastAt < PERIOD_MS) return this.#deaf;
    const beats = Number(beat - this.#beat);
    this.#lastAt = at;
    this.#beat = beat;
    // Time must have passed in the guest. A replay has its own deadline; and while nobody listens, what the guest answers is
    // held back (F6).
    if (beats < BEATS || this.p.replaying || !this.p.path.control.slots(this.guest.slot).listening)
      return this.#heard(at);
    const before = this.#waiting;
    this.#waiting = new Map();
    let progress = false;
    const repeated: { key: string; flow: Flow }[] = [];
    for (const { id, flow } of this.p.path.flows()) {
      const key = `${id}.${flow.generation}`;
      const earlier = before.get(key);
      if (earlier && flow.g_ack > earlier.acked) progress = true;
      if (this.#asked.has(key) && earlier && flow.packets_out > earlier.packetsOut) progress = true;
      if (flow.in_end <= flow.g_ack || !this.#isServed(flow)) continue;
      this.#waiting.set(key, { acked: flow.g_ack, packetsOut: flow.packets_out, lastIn: flow.last_in_ns });
      if (earlier && (flow.last_in_ns > earlier.lastIn || this.#asked.has(key))) repeated.push({ key, flow });
    }
    if (progress || repeated.length === 0) return this.#heard(at);
    if (this.#deaf.asked === 0) this.#since = at;
    this.#deaf = { asked: this.#deaf.asked + 1, unansweredMs: at - this.#since };
    this.#asked = new Set(repeated.slice(0, ASK).map(({ key }) => key));
    for (const { flow } of repeated.slice(0, ASK)) this.#ask(flow);
    return this.#deaf;
  }

  #heard(at: number): Deafness {
    this.#asked.clear();
    this.#since = at;
    this.#deaf = { asked: 0, unansweredMs: 0 };
    return this.#deaf;
  }

  #isServed(flow: Flow): boolean {
    const served = flow.state === STATE.TRACKED || flow.state === STATE.SPLICED;
    return served && flow.owner === this.guest.slot && this.p.path.inCurrentEpoch(flow);
  }

  /** An empty segment just below what the guest expects, as if the client had sent it. */
  #ask(flow: Flow): void {
    const { control } = this.p.path;
    const asked = new Flow(new DataView(flow.bytes.slice().buffer));
    asked.in_end = flow.g_ack;
    asked.fin_in = UNSET;
    const ends = { guestMac: control.guest_mac.slice(0, 6), ...hostAddresses(this.p.config) };
    const [, probe] = forgedAcks(asked, ends);
    if (probe) native.packetSend(this.#socket, this.guest.ifindex, probe);
  }
}
