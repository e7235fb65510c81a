/** F3: SYN -> handshake; the guest's SYN-ACK answers it; the client's ACK promotes it to a flow. */
import { ByteMap } from './byte-map.js';
import { clientShift, drop, has, isCurrent, ZERO } from './rules.js';
import { delta, distance, later, plus, shiftBack, shiftBy } from './seq.js';
import type { Flow, Handshake, Options, Outcome, Segment, Ssw } from './state.js';

/** Data of a first segment lies at most so far behind the SYN. */
const FIRST_DATA = 2 ** 20;

export function clientSyn(m: Ssw, s: Segment): Outcome {
  let slot = m.active;
  const f = m.flows.get(s.port);
  if (f && f.state !== 'CLOSED') {
    // F3: a SYN on a live tuple changes nothing; only its owner may judge it, once it is there.
    if (!isCurrent(m, f) || f.state === 'REPLAYING') return drop(m, 'HELD');
    slot = f.owner;
  }
  // F6: new SYNs wait while nobody listens.
  if (slot === undefined || m.slots[slot]!.epoch === undefined || !m.slots[slot]!.listening) {
    return drop(m, 'DROP_NO_GUEST');
  }
  const known = m.handshakes.get(s.port);
  const h: Handshake = known?.c_isn === s.seq ? known : ({} as Handshake);
  h.c_isn = s.seq;
  h.client = { ...s.offer };
  h.ecn = has(s, 'E') && has(s, 'W');
  h.c_tsval = s.ts?.[0] ?? ZERO;
  if (!h.answer) h.slot = slot;
  m.handshakes.set(s.port, h);
  return { guest: slot, segment: s };
}

export function guestAnswer(m: Ssw, slot: number, s: Segment): Outcome {
  const h = m.handshakes.get(s.port);
  const { epoch } = m.slots[slot]!;
  if (!h || s.ack !== plus(h.c_isn, 1)) return drop(m, 'DROP_UNKNOWN');
  // F1: only the guest that the SYN was given to, or the one that has taken over since.
  if (epoch === undefined || (slot !== h.slot && slot !== m.active)) return drop(m, 'DROP_ZOMBIE');
  const former = m.flows.get(s.port);
  if (former && former.state !== 'CLOSED') {
    // F1: its owner alone may accept another connection on this tuple, and knows the old one no more then.
    if (former.owner !== slot || !isCurrent(m, former)) return drop(m, 'DROP_ZOMBIE');
    if (former.c_isn !== h.c_isn) former.state = 'CLOSED';
  }
  const guest: Options = { ...s.offer };
  const g_tsval = s.ts?.[0] ?? ZERO;
  const first = h.answer;
  // A second guest speaks with the first one's ISN and clock: the client may know them already.
  const d = first ? delta(first.s_isn, s.seq) : ZERO;
  const t = !first ? ZERO : first.epoch === epoch ? first.t : delta(plus(first.s_tsval, 1), g_tsval);
  h.slot = slot;
  h.answer = {
    ...{ epoch, guest, g_tsval, window: s.window, d, t },
    s_isn: first?.s_isn ?? s.seq,
    server: first?.server ?? guest,
    s_tsval: first ? later(first.s_tsval, shiftBy(g_tsval, t)) : g_tsval,
  };
  const ts = s.ts && ([shiftBy(s.ts[0], t), s.ts[1]] as typeof s.ts);
  return { wire: { ...s, seq: h.answer.s_isn, ts } };
}

/** The client had forgotten its SYN when the answer came, and says so at the one place that it knows: the guest forgets it, too. */
export function giveUp(m: Ssw, s: Segment): Outcome | undefined {
  const h = m.handshakes.get(s.port);
  if (!h || s.seq !== plus(h.c_isn, 1)) return undefined;
  m.handshakes.delete(s.port);
  const { epoch } = m.slots[h.slot]!;
  if (epoch === undefined || (h.answer && h.answer.epoch !== epoch)) return drop(m, 'HELD');
  return { guest: h.slot, segment: s };
}

/** The flow of a client's first segment behind an answered handshake; undefined if there is none. */
export function promote(m: Ssw, s: Segment): Flow | undefined {
  const h = m.handshakes.get(s.port);
  const a = h?.answer;
  if (!h || !a || !has(s, 'A') || s.ack !== plus(a.s_isn, 1)) return undefined;
  const gap = distance(s.seq, plus(h.c_isn, 1));
  if (gap < 0 || gap >= FIRST_DATA) return undefined;
  const translated = a.d !== ZERO || a.t !== ZERO;
  const f: Flow = {
    ...{
      state: translated ? 'SPLICED' : 'TRACKED',
      owner: h.slot,
      epoch: a.epoch,
      translated,
      rst_in: false,
    },
    ...{ c_isn: h.c_isn, s_isn: a.s_isn, client: h.client, ecn: h.ecn, server: a.server, guest: a.guest },
    ...{ in_base: 0, in_first: 0, in_acked: 0, fin_in: undefined, input: new ByteMap(), in_end: 0 },
    ...{ marks: [], mark_out: 0, mark_in: 0, urg_in: 0 },
    ...{ out_base: 0, out_acked: 0, out_sent: 0, fin_out: undefined, captured: new ByteMap() },
    ...{ compare_end: 0, head_start: 0, head_in: 0 },
    ...{ g_ack: 0, g_edge: a.window, g_snd_nxt: 0, g_isn: shiftBack(a.s_isn, a.d), d: a.d, t: a.t },
    ...{ k: undefined, replay_wscale: 0, answered: false },
    ...{
      c_tsval: h.c_tsval,
      ts_recent: h.c_tsval,
      s_tsval: a.s_tsval,
      g_tsval: a.g_tsval,
      g_tsval_first: a.g_tsval,
    },
    ...{
      c_window: 0,
      failovers: 0,
      diverged_at: 0,
      divergence: 'NOT',
      lost: false,
      unlogged: false,
      leaves: false,
    },
  };
  f.c_window = s.window * 2 ** clientShift(f);
  m.handshakes.delete(s.port);
  m.flows.set(s.port, f);
  m.counted.push('OPENED');
  return f;
}
