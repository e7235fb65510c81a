/** P5, R6: what clients hear in a guest's place. A held connection needs neither guest nor supervisor to stay alive. */
import * as rules from './rules.js';
import { drop, has, inTotal, outSeq } from './rules.js';
import { seq } from './seq.js';
import type { Counter, Flow, Outcome, Segment, Ssw } from './state.js';

/** What takes a place in the stream, and probes just below it, ask for an answer (RFC 9293, 3.10.7.4); plain ACKs never. */
export function asks(f: Flow, s: Segment): boolean {
  if (has(s, 'R')) return false;
  return s.data.length > 0 || has(s, 'F') || rules.inPosition(f, s.seq) < f.in_acked;
}

/** All that is logged is acknowledged, with a closed window: wait, but do not give up. */
export function hold(m: Ssw, f: Flow, s: Segment, why: Counter): Outcome {
  f.in_acked = Math.max(f.in_acked, inTotal(f));
  return answered(m, why, acknowledgement(f, s, 0));
}

/** To a probe beyond a live guest's window, which it must not get: what the guest said last. */
export function sayWindow(m: Ssw, f: Flow, s: Segment): Outcome {
  const window = rules.windowField(Math.max(0, f.g_edge - f.in_acked), rules.serverShift(f));
  return answered(m, 'DROP_WINDOW', acknowledgement(f, s, window));
}

/** The connection is lost; the client believes it at the place that it names itself (RFC 5961, 3.2). */
export function resetClient(m: Ssw, s: Segment): Outcome {
  if (has(s, 'R') || !has(s, 'A')) return drop(m, 'DROP_UNKNOWN');
  return answered(m, 'DROP_UNKNOWN', bare(s, { seq: s.ack, flags: 'R' }));
}

/** From behind all that was ever sent: below what the client expects it would not look at the rest. */
function acknowledgement(f: Flow, s: Segment, window: number): Segment {
  const ts = f.client.ts && f.server.ts ? { ts: [f.s_tsval, f.c_tsval] as Segment['ts'] } : {};
  return bare(s, { seq: outSeq(f, f.out_sent), ack: rules.inSeq(f, f.in_acked), flags: 'A', window, ...ts });
}

const bare = (s: Segment, more: Pick<Segment, 'seq' | 'flags'> & Partial<Segment>): Segment => ({
  ...{ port: s.port, ack: seq(0), window: 0, data: Buffer.alloc(0) },
  ...more,
});

function answered(m: Ssw, why: Counter, answer: Segment): Outcome {
  m.counted.push(why, 'ANSWERED');
  return { dropped: why, answer };
}
