/** Guest to client, or to the replay socket: F1, F6 and P3 decide who may speak, P2 compares. */
import { guestAnswer } from './handshake.js';
import * as rules from './rules.js';
import { drop, has, inTotal, outSeq } from './rules.js';
import { delta, later, type Position, plus, seq, shiftBack, shiftBy } from './seq.js';
import type { Flow, Outcome, Segment, Ssw } from './state.js';

const MOST_IN_FLIGHT = 2 ** 30;

export function fromGuest(m: Ssw, slot: number, s: Segment): Outcome {
  const f = m.flows.get(s.port);
  if (f && repeatsAnswer(m, f, slot, s)) return { wire: repeated(f, s) };
  if (!f || (has(s, 'S') && f.state !== 'REPLAYING') || (f.state === 'CLOSED' && refuses(m, s)))
    return withoutFlow(m, slot, s);
  // F6: the resets of a service that does not run mean nothing.
  if (has(s, 'R') && !m.slots[slot]!.listening) return drop(m, 'DROP_GUEST_RST');
  const owns = f.owner === slot && rules.isCurrent(m, f);
  if (has(s, 'S')) {
    if (!owns || !has(s, 'A') || !answerReplay(f, s)) return drop(m, 'DROP_ZOMBIE');
    return { replay: forReplay(f, s) };
  }
  // It holds a broken-off replay still, and says at which place it would believe a reset: never below its start (L5).
  if (owns && f.state === 'REPLAYING' && !f.answered && has(s, 'A')) {
    const at = rules.inPosition(f, s.ack);
    if (at >= f.in_base && at <= inTotal(f)) f.g_ack = at;
  }
  // P3: no zombie speaks.
  if (!owns || f.state === 'DIVERGED' || (f.state === 'REPLAYING' && !f.answered))
    return drop(m, 'DROP_ZOMBIE');
  // Its socket is gone, and a late ACK found none.
  if (has(s, 'R') && f.state === 'CLOSED' && rules.endedProperly(f)) return drop(m, 'DROP_GUEST_RST');
  return judge(m, f, s);
}

/** The guest has not had the ACK that made the flow: the client's answer to its SYN-ACK brings it another. */
function repeatsAnswer(m: Ssw, f: Flow, slot: number, s: Segment): boolean {
  if (!has(s, 'S') || !has(s, 'A') || has(s, 'R')) return false;
  const served =
    (f.state === 'TRACKED' || f.state === 'SPLICED') && f.owner === slot && rules.isCurrent(m, f);
  return served && s.seq === f.g_isn && s.ack === rules.inSeq(f, f.in_base);
}

const repeated = (f: Flow, s: Segment): Segment => ({
  ...{ ...s, seq: shiftBy(s.seq, f.d) },
  ts: s.ts && [shiftBy(s.ts[0], f.t), s.ts[1]],
});

/** Also where the tuple had a connection before: its record knows nothing of the new handshake. */
function refuses(m: Ssw, s: Segment): boolean {
  const h = m.handshakes.get(s.port);
  return has(s, 'R') && !has(s, 'S') && h !== undefined && !h.answer && s.ack === plus(h.c_isn, 1);
}

function withoutFlow(m: Ssw, slot: number, s: Segment): Outcome {
  if (has(s, 'S') && has(s, 'A') && !has(s, 'R')) return guestAnswer(m, slot, s);
  if (has(s, 'R') && !has(s, 'S') && slot === m.active) {
    if (!m.slots[slot]!.listening) return drop(m, 'DROP_GUEST_RST');
    if (refuses(m, s)) {
      m.handshakes.delete(s.port); // a running service may refuse
      return { wire: s };
    }
  }
  return drop(m, 'DROP_ZOMBIE');
}

/** The backup's SYN-ACK to a replay fixes all deltas, relative to what the client sees, never accumulated. */
function answerReplay(f: Flow, s: Segment): boolean {
  if (f.answered) return s.seq === f.g_isn;
  if (s.ack !== rules.inSeq(f, f.in_base)) return false;
  const tsval = s.ts?.[0] ?? seq(0);
  f.answered = true;
  f.g_isn = s.seq;
  f.guest = { ...s.offer };
  f.d = delta(outSeq(f, f.out_base), plus(s.seq, 1));
  f.t = delta(plus(f.s_tsval, 1), tsval);
  f.g_ack = f.in_base;
  f.g_edge = f.in_base + s.window;
  f.g_snd_nxt = f.out_base;
  f.g_tsval = f.g_tsval_first = tsval;
  if (f.guest.wscale === undefined) f.replay_wscale = 0;
  return true;
}

/** The replay socket lives in the guest's sequence space, and has a clock of its own. */
const forReplay = (f: Flow, s: Segment): Segment => ({
  ...s,
  ts: s.ts && [s.ts[0], shiftBack(s.ts[1], f.k ?? seq(0))],
});

function judge(m: Ssw, f: Flow, s: Segment): Outcome {
  const visible = shiftBy(s.seq, f.d);
  const start = rules.outPosition(f, visible);
  const end = start + s.data.length;
  const total = end + (has(s, 'F') ? 1 : 0);
  const ack = rules.inPosition(f, s.ack);
  // The guest can't acknowledge what it never got; every segment but a RST acknowledges.
  const lies = has(s, 'A') ? ack < 0 || ack > inTotal(f) : !has(s, 'R');
  // A keep-alive probe of a fresh connection lies before the first byte, and brings nothing.
  const before = start < -1 || (start < 0 && total >= (has(s, 'F') ? 0 : 1));
  if (before || lies || end - f.out_sent > MOST_IN_FLIGHT) return drop(m, 'DROP_GUEST_LIE');
  const differs = f.failovers ? contradictsEnd(f, s, end) : undefined;
  if (differs) return diverge(m, f, differs, differs === 'LONGER' ? f.fin_out! : end);
  if (has(s, 'A') && !has(s, 'R')) {
    f.g_ack = Math.max(f.g_ack, ack);
    f.g_edge = Math.max(f.g_edge, ack + s.window * 2 ** rules.guestShift(f));
  }
  if (s.ts) f.g_tsval = later(f.g_tsval, s.ts[0]);
  f.g_snd_nxt = Math.max(f.g_snd_nxt, total);
  if (has(s, 'F')) f.fin_out ??= end;
  const [toWire, toReplay] = route(f, s, start, total);
  const fresh = Math.max(f.out_sent, start, 0);
  if (total > f.out_sent) {
    if (f.in_end > f.head_in || f.out_sent === 0) [f.head_start, f.head_in] = [f.out_sent, f.in_end];
    if (toWire) f.out_sent = total;
  }
  const out = toWire ? answer(f, s, start, total, ack) : undefined;
  if (!agrees(f, s, start)) return diverge(m, f, 'CONTENT', Math.max(start, 0));
  if (out && !f.unlogged) capture(m, f, s, start, fresh);
  return { ...(out && { wire: out }), ...(toReplay && { replay: forReplay(f, s) }) };
}

/** While it is replayed: what the client has acknowledged is for the replay socket, what it has not is for the client. */
function route(f: Flow, s: Segment, start: Position, total: Position): [boolean, boolean] {
  if (f.state !== 'REPLAYING') return [true, false];
  if (has(s, 'R') || total <= f.out_acked || total === start) return [false, true];
  return [true, start < f.out_acked];
}

/**
 * The segment as the client sees it. What was acknowledged to it stays acknowledged (RFC 5961, 5), and the window's edge stays
 * where the guest put it. A guest that has not yet said what its client has already speaks from where the client stands.
 */
function answer(f: Flow, s: Segment, start: Position, total: Position, ack: Position): Segment {
  const behind = total === start && start === f.g_snd_nxt && start < f.out_acked;
  const visible = behind ? outSeq(f, f.out_acked) : shiftBy(s.seq, f.d);
  const raised = has(s, 'A') ? Math.max(0, f.in_acked - ack) : 0;
  const bytes = Math.max(0, s.window * 2 ** rules.guestShift(f) - raised);
  const window = rules.windowField(bytes, rules.serverShift(f));
  const tsval = s.ts && shiftBy(s.ts[0], f.t);
  if (tsval !== undefined) f.s_tsval = later(f.s_tsval, tsval);
  if (has(s, 'A')) f.in_acked = Math.max(f.in_acked, ack);
  if (has(s, 'R')) f.state = 'CLOSED';
  rules.closeIfDone(f);
  if (!f.translated) return s;
  return {
    ...{ ...s, seq: visible, window },
    ack: has(s, 'A') ? rules.inSeq(f, f.in_acked) : s.ack,
    ts: s.ts && [tsval!, s.ts[1]],
  };
}

/** P2 for the stream's end: a later guest ends it neither sooner nor later than an earlier one did. */
function contradictsEnd(f: Flow, s: Segment, end: Position): 'LONGER' | 'SHORTER' | undefined {
  const fin = has(s, 'F');
  if (f.fin_out === undefined) return fin && end < f.compare_end ? 'SHORTER' : undefined;
  if ((s.data.length > 0 || fin) && end > f.fin_out) return 'LONGER';
  return fin && end < f.fin_out ? 'SHORTER' : undefined;
}

function diverge(m: Ssw, f: Flow, how: Flow['divergence'], at: Position): Outcome {
  if (f.state !== 'CLOSED') Object.assign(f, { state: 'DIVERGED', divergence: how, diverged_at: at });
  return drop(m, 'DIVERGED');
}

/** P2: what an earlier guest sent and the comparator has kept must come again. */
function agrees(f: Flow, s: Segment, start: Position): boolean {
  for (const [i, byte] of s.data.entries()) {
    if (start + i < f.compare_end && (f.captured.get(start + i) ?? byte) !== byte) return false;
  }
  return true;
}

function capture(m: Ssw, f: Flow, s: Segment, start: Position, fresh: Position): void {
  for (const [i, byte] of s.data.entries()) {
    const at = start + i;
    if (at >= fresh && rules.isCovered(m, f, at)) f.captured.put(at, byte);
  }
}
