/** Segments of everybody who can speak: plausible ones mostly, near the edges of what the flow's state allows. */
import type { Random } from './random.js';
import { guestSeq, inSeq, inTotal, outSeq } from './rules.js';
import type { Packet, Piece } from './script.js';
import { plus, type Seq, seq } from './seq.js';
import type { Flow, Options } from './state.js';

const SIZES = [0, 1, 2, 7, 100, 536, 1000, 1448, 1460, 2600] as const;
/** ISNs and clocks that wrap soon, and some that do not. */
export const someSeq = (r: Random): Seq =>
  seq(r.chance(0.5) ? 2 ** 32 - 1 - r.int(r.pick([3, 3000, 20_000])) : r.int(2 ** 32));

export function someOffer(r: Random, asked?: Options): Options {
  const may = (had: unknown, often: number): boolean =>
    (asked === undefined || had) === true && r.chance(often);
  return {
    ...(r.chance(0.95) && { mss: r.pick([536, 1460, 8960]) }),
    ...(may(asked && asked.wscale !== undefined, 0.8) && { wscale: r.pick([0, 1, 3, 7, 14]) }),
    ...(may(asked?.sack, 0.8) && { sack: true }),
    ...(may(asked?.ts, 0.85) && { ts: true }),
  };
}

const near = (r: Random, p: number): number => p + r.pick([-1, 0, 0, 0, 1, -r.int(3000), r.int(3000)]);
const size = (r: Random): number => r.pick(SIZES);

function piece(r: Random, of: Piece['of'], at: number, n: number, wrong: number): Piece {
  return { of, at, n, ...(n && r.chance(wrong) && { wrong: r.int(n) }) };
}

function blocks(r: Random, low: number, high: number, toSeq: (p: number) => Seq, most: number): [Seq, Seq][] {
  return Array.from({ length: r.between(1, most) }, () => {
    const from = r.between(low, Math.max(low, high));
    return [toSeq(from), toSeq(from + r.between(1, 500))];
  });
}

/** The client, or somebody who pretends to be it. */
export function fromClient(r: Random, f: Flow, port: number): Packet {
  const at = r.weighted([
    [50, f.in_end],
    [12, r.between(Math.max(-1, f.g_ack - 2000), f.in_end)],
    [10, f.in_end + r.int(4000)],
    [5, near(r, f.g_edge)],
    [4, f.g_ack - 1],
    [4, near(r, f.fin_in ?? f.in_end)],
    [3, near(r, inTotal(f))],
    [1, r.int(2 ** 32)],
  ]);
  const ack = r.weighted([
    [55, f.out_sent],
    [15, f.out_acked],
    [15, r.between(f.out_acked, f.out_sent)],
    [3, f.out_sent + 1],
    [3, near(r, f.out_acked)],
    [2, f.out_acked - r.int(2 ** 31)],
    [2, r.int(2 ** 32)],
  ]);
  const rst = r.chance(0.02);
  const fin = !rst && r.chance(0.04);
  const n = rst ? 0 : Math.min(size(r), r.chance(0.9) ? Math.max(0, f.g_edge - at) : 2600);
  const flags = rst ? r.pick(['R', 'RA']) : r.chance(0.01) ? 'P' : fin ? 'AF' : r.chance(0.03) ? 'AU' : 'A';
  const clock = r.weighted<Seq>([
    [90, plus(f.c_tsval, r.int(40))],
    [5, plus(f.c_tsval, -r.int(2000))],
    [2, someSeq(r)],
  ]);
  const ts = f.client.ts && f.server.ts && r.chance(0.97);
  const sack = f.client.sack && f.server.sack && !rst && r.chance(0.12);
  return {
    ...{ port, seq: inSeq(f, at), ack: outSeq(f, ack), flags, window: r.pick([0, 1, 500, 65_535]) },
    ts: ts ? [clock, r.chance(0.9) ? plus(f.s_tsval, -r.int(50)) : someSeq(r)] : undefined,
    sack: sack ? blocks(r, ack, f.out_sent + 100, p => outSeq(f, p), ts ? 3 : 4) : undefined,
    ...(flags.includes('U') && { urgent: r.pick([0, 1, n, n + 5, r.int(65_536)]) }),
    ...(r.chance(0.02) && { damaged: true }),
    data: piece(r, 'input', at, n, 0.02),
  };
}

/** The guest that owns the flow, or one that thinks it does. */
export function fromGuest(r: Random, f: Flow, port: number): Packet {
  const ahead = Math.max(f.g_snd_nxt, f.out_base);
  const at = r.weighted([
    [75, Math.min(ahead, f.fin_out ?? ahead)],
    [10, r.between(Math.max(f.out_base, f.g_snd_nxt - 3000), f.g_snd_nxt)],
    [3, near(r, f.out_acked)],
    [3, f.g_snd_nxt - 1],
    [2, f.g_snd_nxt + r.int(3000)],
    [2, near(r, f.fin_out ?? ahead)],
    [1, r.int(2 ** 32)],
  ]);
  const ack = r.weighted([
    [60, inTotal(f)],
    [20, f.g_ack],
    [15, r.between(f.g_ack, inTotal(f))],
    [2, inTotal(f) + 1],
    [2, near(r, f.g_ack)],
    [f.state === 'REPLAYING' && !f.answered ? 20 : 1, r.between(0, f.in_base)],
    [1, r.int(2 ** 32)],
  ]);
  const rst = r.chance(0.015);
  const fin = !rst && r.chance(0.03);
  // A replayed guest often only acknowledges.
  const n = rst || (f.state === 'REPLAYING' && r.chance(0.3)) ? 0 : size(r);
  const ts = f.client.ts && f.guest.ts;
  const sack = f.client.sack && f.guest.sack && r.chance(0.08);
  return {
    ...{ port, seq: guestSeq(f, at), ack: inSeq(f, ack), window: r.pick([0, 1, 40, 700, 9000, 65_535]) },
    flags: rst ? r.pick(['R', 'RA']) : fin ? 'AF' : r.chance(0.01) ? 'P' : 'A',
    ts: ts ? [plus(f.g_tsval, r.chance(0.95) ? r.int(40) : -r.int(500)), f.c_tsval] : undefined,
    sack: sack ? blocks(r, Math.max(0, ack), f.in_end + 500, p => inSeq(f, p), ts ? 3 : 4) : undefined,
    data: piece(r, 'output', at, n, 0.01),
  };
}

/** The replay socket: a host kernel in the guest's sequence space. `clock` is the socket's own. */
export function fromSocket(r: Random, f: Flow, port: number, clock: Seq): Packet {
  const at = r.weighted([
    [60, f.g_ack],
    [20, r.between(f.in_base, f.in_end)],
    [10, f.in_end],
    [5, near(r, f.in_end)],
  ]);
  const got = r.weighted([
    [70, f.g_snd_nxt],
    [20, r.between(f.out_base, f.g_snd_nxt)],
    [10, near(r, f.out_acked)],
  ]);
  const n = Math.min(size(r), r.chance(0.97) ? Math.max(0, f.in_end - at) : 2600);
  const ends = at + n === f.fin_in;
  const ts = f.client.ts && f.server.ts && f.guest.ts;
  const sack = f.client.sack && f.guest.sack && r.chance(0.1);
  const flags = r.chance(0.02) ? 'R' : r.chance(ends ? 0.8 : 0.02) ? 'AF' : 'A';
  return {
    ...{ port, seq: inSeq(f, at), ack: guestSeq(f, got), flags, window: r.pick([1, 64, 4000, 65_535]) },
    ts: ts ? [plus(clock, r.int(40_000)), f.g_tsval] : undefined,
    sack: sack ? blocks(r, got, f.g_snd_nxt, p => guestSeq(f, p), ts ? 3 : 4) : undefined,
    data: piece(r, 'input', at, n, 0),
  };
}
