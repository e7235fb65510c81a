/** Client to guest: F1-F4 decide, L1-L3 and L7 log, P3 delivers. */
import { asks, hold, resetClient, sayWindow } from './answer.js';
import { clientSyn, giveUp, promote } from './handshake.js';
import * as rules from './rules.js';
import { drop, guestSeq, has, inTotal } from './rules.js';
import { distance, isAfter, later, type Position, shiftBack } from './seq.js';
import type { Counter, Flow, Outcome, Segment, Ssw } from './state.js';

export function fromWire(m: Ssw, s: Segment): Outcome {
  // F2: what makes no sense is dropped, and so is what the checksum does not vouch for.
  if (has(s, 'S') && (has(s, 'A') || has(s, 'R'))) return drop(m, 'DROP_PARSE');
  if (s.damaged) return drop(m, 'DROP_CHECKSUM');
  if (has(s, 'S')) return clientSyn(m, s);
  let f = m.flows.get(s.port);
  if (!f || f.state === 'CLOSED') {
    const given = has(s, 'R') && !has(s, 'A') ? giveUp(m, s) : undefined;
    if (given) return given;
    f = promote(m, s) ?? f;
  }
  if (!f) return drop(m, 'DROP_UNKNOWN');
  // P4: who has not heard the end of a connection whose guest is gone hears of it; the last ACK may be asked for again.
  const cut = f.lost || (!rules.isCurrent(m, f) && !rules.endedProperly(f));
  if (f.state === 'DIVERGED' || (f.state === 'CLOSED' && cut)) return resetClient(m, s);
  // F1: what is held is logged and judged, not delivered; while it is replayed the replay socket plays the client.
  const was = !rules.isCurrent(m, f) || f.state === 'REPLAYING';
  const asked = asks(f, s);
  const said = has(s, 'R') ? reset(f, s) : judge(m, f, s);
  const held = was || f.epoch === 0; // it may have left its guest just now
  const waits = held && asked;
  const why = said ?? (held ? 'HELD' : undefined);
  if (!why) return { guest: f.owner, segment: f.translated ? translated(f, s) : s };
  if (why === 'DROP_ACK' || f.unlogged) return drop(m, why);
  if (waits) return hold(m, f, s, why);
  return why === 'DROP_WINDOW' ? sayWindow(m, f, s) : drop(m, why);
}

/** F4: a RST closes at exactly what the guest has acknowledged, or is about to; it brings nothing else. */
function reset(f: Flow, s: Segment): undefined {
  const at = rules.inPosition(f, s.seq);
  if (at !== f.g_ack && at !== inTotal(f)) return;
  f.rst_in = true;
  f.state = 'CLOSED';
}

function judge(m: Ssw, f: Flow, s: Segment): Counter | undefined {
  const start = rules.inPosition(f, s.seq);
  const end = start + s.data.length;
  const ack = rules.outPosition(f, s.ack);
  // F4 (RFC 5961, 5.2): below what is acknowledged by more than the client's largest window, the guest takes nothing.
  const maxwin = 65_535 * 2 ** rules.clientShift(f);
  if (!has(s, 'A') || ack > f.out_sent || ack < f.out_acked - maxwin) return 'DROP_ACK';
  // RFC 7323, 5: what is older than what the guest has taken it discards, but for one tick, as Linux does.
  const ts = f.client.ts && f.server.ts ? s.ts?.[0] : undefined;
  const old = ts !== undefined && f.ts_recent !== rules.ZERO && distance(f.ts_recent, ts) > 1;
  if (!old && start <= f.g_edge && end + 1 >= f.g_ack) {
    if (ack >= f.out_acked) {
      f.out_acked = ack;
      f.c_window = s.window * 2 ** rules.clientShift(f);
    }
    if (s.ts) f.c_tsval = later(f.c_tsval, s.ts[0]);
    if (s.ts && start <= f.in_acked) f.ts_recent = later(f.ts_recent, s.ts[0]);
    rules.closeIfDone(f);
  }
  if (old && (s.data.length > 0 || has(s, 'F'))) return 'DROP_OLD';
  // L7: the stream ends at one place; nothing lies behind it.
  const fin = has(s, 'F');
  if (f.fin_in !== undefined && ((s.data.length && end > f.fin_in) || (fin && end !== f.fin_in)))
    return 'DROP_CONFLICT';
  if (fin && end < Math.max(f.in_end, f.input.end)) return 'DROP_CONFLICT';
  // L2: never below what the guest has acknowledged, nothing beyond its window.
  const from = Math.max(start, f.g_ack);
  const brings = from < end || (fin && end >= f.g_ack);
  if (brings && end > f.g_edge) return 'DROP_WINDOW';
  const advances = end > f.in_end;
  if (from < end && f.unlogged) {
    f.in_end = Math.max(f.in_end, end, f.input.end); // L6: then the end of what was delivered
  } else if (from < end) {
    if (f.leaves && rules.isCurrent(m, f) && beginsAnew(f, from)) f.epoch = 0; // held
    if (advances) mark(f, from, Math.max(0, ack));
    const why = rules.logInput(f, from, s.data.subarray(from - start));
    if (why) return why;
  }
  if (fin && brings && f.fin_in === undefined) {
    f.fin_in = end;
    if (from >= end && ack > f.mark_out && !f.unlogged) mark(f, end, ack);
  }
  if (has(s, 'U') && !f.unlogged) urgent(f, start + Math.max(s.urgent ?? 0, 1) - 1, Math.max(0, ack));
  return undefined;
}

/** A new exchange, as far as can be told without reading: what came before is answered, and nothing is on its way. */
function beginsAnew(f: Flow, start: Position): boolean {
  const served = f.state === 'TRACKED' || f.state === 'SPLICED';
  const taken = f.g_ack === f.in_end && f.input.end <= f.in_end;
  const answered = f.head_in === f.in_end && f.out_acked === f.out_sent;
  return served && start === f.in_end && taken && answered;
}

/** A causal mark: what the client had acknowledged when it sent this byte, where the marks so far do not say it. */
function mark(f: Flow, at: Position, ack: Position): void {
  if (ack <= f.mark_out && at >= f.mark_in) return;
  f.mark_out = Math.max(f.mark_out, ack);
  f.mark_in = Math.max(f.mark_in, at);
  f.marks.push({ in: at, out: ack, urgent: false });
}

/** L7: the urgent byte is a position; it only moves ahead, and never into what the guest has taken. */
function urgent(f: Flow, at: Position, ack: Position): void {
  if (at < f.g_ack || at + 1 <= f.urg_in) return;
  f.urg_in = at + 1;
  f.marks.push({ in: at, out: ack, urgent: true });
}

/** The guest's own numbers. The ack is clamped to what this guest has sent, or it would not take the payload. */
function translated(f: Flow, s: Segment): Segment {
  const ack = guestSeq(f, Math.min(rules.outPosition(f, s.ack), f.g_snd_nxt));
  const echo = s.ts && later(shiftBack(s.ts[1], f.t), f.g_tsval_first);
  const limit = guestSeq(f, f.g_snd_nxt);
  const sack = s.sack?.map(([a, b]): [typeof a, typeof b] => [shiftBack(a, f.d), shiftBack(b, f.d)]);
  const bytes = s.window * 2 ** rules.clientShift(f);
  return {
    ...{ ...s, ack, window: rules.windowField(bytes, rules.clientShiftAtGuest(f)) },
    ts: s.ts && [s.ts[0], echo!],
    sack: sack?.flat().some(edge => isAfter(edge, limit)) ? undefined : sack,
  };
}
