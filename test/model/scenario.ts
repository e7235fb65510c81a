/** What happens next: a conversation on its way from handshake through faults, replays and splices, with all that disturbs it. */
import type { Random } from './random.js';
import { inputIndex, inTotal, isCurrent } from './rules.js';
import type { Packet, Step } from './script.js';
import { plus, type Seq, seq } from './seq.js';
import type { Flow, Options, Ssw } from './state.js';
import { fromClient, fromGuest, fromSocket, someOffer, someSeq } from './traffic.js';

const NOTHING = { of: 'input', at: 0, n: 0 } as const;
/** The replay socket's clock, unrelated to any other. */
const SOCKET_CLOCK = seq(400_000_000);
const SOCKET_OFFER = { mss: 65_495, wscale: 9, sack: true, ts: true };

export class Scenario {
  /** The last SYN of each port: what is sent again is the same. */
  private readonly syns = new Map<number, { isn: Seq; offer: Options }>();

  /** Clients that only wait while nobody serves them: what they sent is then acknowledged by the splice alone. */
  private readonly patient: boolean;

  constructor(
    private readonly r: Random,
    private readonly m: Ssw,
  ) {
    this.patient = r.chance(0.3);
  }

  /** The next step of one of the client's ports. */
  next(port: number): Step {
    const { r, m } = this;
    if (r.chance(0.015)) return this.host();
    const f = m.flows.get(port);
    if (!f || (f.state === 'CLOSED' && r.chance(0.7))) return this.opening(port, f);
    if (f.state === 'DIVERGED' && r.chance(0.4)) return control({ op: r.pick(['CLOSE', 'LOSE']), port });
    if (f.state === 'CLOSED' && r.chance(0.2)) return control({ op: 'REAP', port });
    if (f.state === 'REPLAYING' && isCurrent(m, f)) return this.replaying(f, port);
    if (!isCurrent(m, f)) return this.held(f, port);
    return r.weighted<() => Step>([
      [46, () => this.client(f, port)],
      [44, () => this.guest(f, port)],
      [3, () => this.meddle(f, port)],
      [4, () => this.spill(f, port)],
      [1, () => ({ at: 'log', does: 'leave', port })],
      [2, () => this.takeOver()],
      [2, () => this.opening(port, f)],
      [1, () => ({ at: 'replay', packet: fromSocket(r, f, port, SOCKET_CLOCK) })],
      [1, () => ({ at: 'guest', slot: f.owner, packet: this.repeatedAnswer(f, port) })],
    ])();
  }

  private client = (f: Flow, port: number): Step => ({ at: 'wire', packet: fromClient(this.r, f, port) });

  private guest(f: Flow, port: number): Step {
    const slot = this.r.chance(0.97) ? f.owner : this.r.int(2);
    return { at: 'guest', slot, packet: fromGuest(this.r, f, port) };
  }

  private opening(port: number, f: Flow | undefined): Step {
    const { r, m } = this;
    const h = m.handshakes.get(port);
    const slot = r.chance(0.95) ? (h?.slot ?? m.active ?? 0) : r.int(2);
    return r.weighted<() => Step>([
      [h ? 8 : 90, () => ({ at: 'wire', packet: this.syn(port) })],
      [h?.answer ? 12 : 60, () => ({ at: 'guest', slot, packet: this.synAck(port) })],
      [h?.answer ? 70 : 8, () => ({ at: 'wire', packet: this.first(port) })],
      [f ? 30 : 2, () => (f ? this.client(f, port) : this.takeOver())],
      [f ? 30 : 2, () => (f ? this.guest(f, port) : this.takeOver())],
    ])();
  }

  private syn(port: number): Packet {
    const { r } = this;
    const known = this.syns.get(port);
    const { isn, offer } = known && r.chance(0.6) ? known : { isn: someSeq(r), offer: someOffer(r) };
    this.syns.set(port, { isn, offer });
    const flags = r.pick(['S', 'S', 'S', 'SEW', 'SR']);
    const data = { of: 'input', at: 0, n: r.chance(0.05) ? 100 : 0 } as const;
    const ts = offer.ts ? ([someSeq(r), seq(0)] as [Seq, Seq]) : undefined;
    const damaged = r.chance(0.02) ? { damaged: true } : {};
    return { port, seq: isn, ack: seq(0), flags, window: 64_240, offer, ts, data, ...damaged };
  }

  private synAck(port: number, asked = this.m.handshakes.get(port)?.client): Packet {
    const { r, m } = this;
    const h = m.handshakes.get(port);
    const first = h?.answer;
    const again = first && first.epoch === m.slots[h.slot]?.epoch && r.chance(0.8);
    const offer = first ? first.server : someOffer(r, asked ?? {});
    const isn = again ? plus(first.s_isn, -first.d) : someSeq(r);
    const ack = plus(h?.c_isn ?? seq(0), r.chance(0.95) ? 1 : 2);
    const clock = again ? plus(first.g_tsval, r.int(2000)) : someSeq(r);
    const ts = offer.ts ? ([clock, h?.c_tsval ?? seq(0)] as [Seq, Seq]) : undefined;
    const flags = r.chance(0.96) ? 'SA' : 'RA';
    const rest = { flags, window: r.pick([0, 1000, 64_240]), ts, data: { ...NOTHING } };
    return { port, seq: isn, ack, ...rest, ...(flags === 'SA' && { offer }) };
  }

  /** The client's first segment behind the SYN-ACK. */
  private first(port: number): Packet {
    const { r, m } = this;
    const h = m.handshakes.get(port);
    const at = r.pick([0, 0, 0, 0, 100, -1]);
    const n = r.pick([0, 0, 1, 400]);
    const ack = plus(h?.answer?.s_isn ?? seq(0), r.chance(0.97) ? 1 : 2);
    const s_tsval = h?.answer?.s_tsval ?? seq(0);
    const ts =
      h?.client.ts && h.answer?.server.ts ? ([plus(h.c_tsval, 1), s_tsval] as [Seq, Seq]) : undefined;
    const flags = r.pick(['A', 'A', 'A', 'A', 'A', 'A', 'AF', 'RA', 'R', 'P']);
    const isn = h?.c_isn ?? seq(0);
    return { port, seq: plus(isn, 1 + at), ack, flags, window: 500, ts, data: { of: 'input', at, n } };
  }

  /** Nobody serves the flow: a guest is made active, and the flow is given to it. */
  private held(f: Flow, port: number): Step {
    const { r, m } = this;
    return r.weighted<() => Step>([
      [
        m.active === undefined || f.unlogged ? 1 : 30,
        () => control({ op: 'REPLAY', port, slot: m.active ?? 0 }),
      ],
      [f.unlogged ? 20 : 0, () => control({ op: 'LOSE', port })],
      [m.active === undefined ? 30 : 2, () => this.takeOver()],
      [this.patient ? 2 : 30, () => this.client(f, port)],
      [12, () => this.guest(f, port)],
      [8, () => this.opening(port, f)],
      [3, () => this.meddle(f, port)],
    ])();
  }

  private replaying(f: Flow, port: number): Step {
    const { r } = this;
    const socket = (): Step => ({ at: 'replay', packet: fromSocket(r, f, port, SOCKET_CLOCK) });
    const splice = (): Step =>
      control({ op: 'SPLICE', port, in_end: f.in_end + (r.chance(0.95) ? 0 : r.pick([-1, 1])) });
    return r.weighted<() => Step>([
      [f.answered ? 1 : 40, () => ({ at: 'replay', packet: this.replaySyn(f, port) })],
      [f.answered ? 1 : 30, () => ({ at: 'guest', slot: f.owner, packet: this.replayAnswer(f, port) })],
      [f.answered ? 25 : 2, socket],
      [f.answered ? 32 : 8, () => this.guest(f, port)],
      [f.answered ? 3 : 2, () => control({ op: 'REPLAY', port, slot: f.owner })],
      [this.patient ? 1 : 18, () => this.client(f, port)],
      [f.g_ack === inTotal(f) ? 30 : 5, splice],
      [4, () => this.meddle(f, port)],
      [1, () => this.takeOver()],
    ])();
  }

  private replaySyn(f: Flow, port: number): Packet {
    const { r } = this;
    const at = plus(f.c_isn, f.in_base + (r.chance(0.95) ? 0 : 1));
    const ts = [plus(SOCKET_CLOCK, r.int(1000)), seq(0)] as [Seq, Seq];
    const rest = { window: 65_535, offer: SOCKET_OFFER, ts, data: { ...NOTHING } };
    return { port, seq: at, ack: seq(0), flags: r.pick(['S', 'SEW']), ...rest };
  }

  private replayAnswer(f: Flow, port: number): Packet {
    const { r } = this;
    const agreed = f.server.wscale === undefined ? { ...f.client, wscale: undefined } : f.client;
    const offer = r.chance(0.7) ? f.server : someOffer(r, agreed as Flow['client']);
    const ack = plus(f.c_isn, 1 + f.in_base + (r.chance(0.95) ? 0 : 1));
    const isn = f.answered && r.chance(0.8) ? f.g_isn : someSeq(r);
    const ts = offer.ts ? ([someSeq(r), f.c_tsval] as [Seq, Seq]) : undefined;
    const rest = { window: r.pick([0, 1000, 64_240]), offer, ts, data: { ...NOTHING } };
    return { port, seq: isn, ack, flags: 'SA', ...rest };
  }

  /** The guest's SYN-ACK to the client or to a replay, said again. */
  private repeatedAnswer(f: Flow, port: number): Packet {
    const { r } = this;
    const ack = plus(f.c_isn, 1 + f.in_base + (r.chance(0.9) ? 0 : 1));
    const ts = f.guest.ts ? ([plus(f.g_tsval, r.int(2000)), f.c_tsval] as [Seq, Seq]) : undefined;
    const rest = { window: r.pick([0, 64_240]), offer: f.guest, ts, data: { ...NOTHING } };
    return { port, seq: plus(f.g_isn, r.chance(0.9) ? 0 : 1), ack, flags: 'SA', ...rest };
  }

  /** Transitions that are stale, out of order, or trim. */
  private meddle(f: Flow, port: number): Step {
    const { r } = this;
    const trim = { in_end: r.between(f.in_base, f.g_ack + 1), out: r.between(f.out_base, f.out_acked + 1) };
    return r.weighted<() => Step>([
      [8, () => control({ op: 'TRIM', port, ...trim })],
      [2, () => control({ op: 'SPLICE', port, in_end: f.in_end })],
      [
        2,
        () =>
          control({
            op: r.pick(['REPLAY', 'SPLICE', 'CLOSE', 'LOSE', 'REAP', 'TRIM', 'HOLD', 'YIELD', 'LEAVE']),
            port,
            slot: f.owner,
            stale: true,
          }),
      ],
      [3, () => control({ op: 'HOLD', port, slot: r.chance(0.9) ? f.owner : r.int(2) })],
      [
        4,
        () =>
          control({
            op: 'LEAVE',
            port,
            slot: r.chance(0.9) ? f.owner : r.int(2),
            count: r.chance(0.9) ? 1 : 0,
          }),
      ],
      [2, () => control({ op: 'YIELD', port, slot: f.owner, in_end: f.in_end, out: f.out_sent })],
      [1, () => control({ op: 'REPLAY', port, slot: r.int(2) })],
      [1, () => control({ op: 'REAP', port })],
      [1, () => control({ op: 'LOSE', port })],
      [2, () => this.spill(f, port)],
    ])();
  }

  /** All that may go, or a part, or more. */
  private spill(f: Flow, port: number): Step {
    const { r } = this;
    const all = inputIndex(Math.min(f.g_ack, f.in_end)) - f.in_first;
    const first = Math.max(0, f.in_first + (r.chance(0.95) ? 0 : r.pick([-1, 1])));
    const count = Math.max(0, r.chance(0.7) ? Math.min(32, all) : all + r.pick([-1, 0, 1, 40]));
    return control({ op: 'SPILL', port, first, count });
  }

  private takeOver(): Step {
    const slot = this.m.active === undefined ? this.r.int(2) : 1 - this.m.active;
    return { at: 'host', does: 'takeOver', slot };
  }

  private host(): Step {
    const { r } = this;
    const does = r.pick([
      'fence',
      'takeOver',
      'takeOver',
      'steer',
      'listen',
      'listen',
      'stopListening',
    ] as const);
    return { at: 'host', does, slot: r.int(2) };
  }
}

const control = (change: (Step & { at: 'control' })['change']): Step => ({ at: 'control', change });
