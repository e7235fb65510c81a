/** Replay socket to guest: the guest must take it for the client, and it must not say more than the client did. */
import * as rules from './rules.js';
import { drop, guestSeq, has } from './rules.js';
import { delta, distance, earlier, isAfter, plus, shiftBy } from './seq.js';
import type { Flow, Outcome, Segment, Ssw } from './state.js';

/** TSvals of the replay start this far below the client's last one, so that round trips can be measured. */
const ROOM = 20_000;

export function fromReplay(m: Ssw, s: Segment): Outcome {
  const f = m.flows.get(s.port);
  const begun = f?.state === 'REPLAYING' && rules.isCurrent(m, f);
  // Replay sockets are never closed normally: their RST is never the client's.
  if (!f || !begun || has(s, 'R')) return drop(m, 'DROP_REPLAY');
  const segment = has(s, 'S') ? mirrored(f, s) : played(f, s);
  return segment ? { guest: f.owner, segment } : drop(m, 'DROP_REPLAY');
}

/** The SYN carries the ISN that makes the replayed bytes the client's, and offers what client and server agreed on. */
function mirrored(f: Flow, s: Segment): Segment | undefined {
  if (plus(s.seq, 1) !== rules.inSeq(f, f.in_base)) return undefined;
  const { client, server } = f;
  f.replay_wscale = Math.min(s.offer?.wscale ?? rules.UNSCALED, 14);
  const tsval = s.ts?.[0] ?? rules.ZERO;
  f.k ??= delta(plus(f.c_tsval, -ROOM), tsval);
  const offer = {
    mss: client.mss ?? 536,
    ...(client.wscale !== undefined && server.wscale !== undefined && { wscale: client.wscale }),
    ...(client.sack && server.sack && { sack: true }),
    ...(client.ts && server.ts && { ts: true }),
  };
  const flags = s.flags.replace(/[EW]/g, '') + (f.ecn ? 'EW' : '');
  return { ...s, offer, flags, ts: offer.ts && s.ts ? [shiftBy(tsval, f.k), s.ts[1]] : undefined };
}

function played(f: Flow, s: Segment): Segment | undefined {
  const end = rules.inPosition(f, s.seq) + s.data.length;
  // The ACKs behind a FIN have no more than its number.
  if (!f.answered || end < 0 || end > (s.data.length ? f.in_end : rules.inTotal(f))) return undefined;
  // L7: a FIN only where the client's own stands.
  if (has(s, 'F') && end !== f.fin_in) return undefined;
  // Never beyond what the client has acknowledged: clamp the ack, round the window up.
  const limit = guestSeq(f, f.out_acked);
  const ack = earlier(s.ack, limit);
  const room = distance(limit, ack) + (f.client.mss ?? 536);
  const scale = rules.clientShiftAtGuest(f);
  const bytes = Math.min(s.window * 2 ** f.replay_wscale, room);
  const window = Math.min(65_535, Math.ceil(bytes / 2 ** scale));
  return {
    ...{ ...s, ack, window },
    ts: s.ts && [earlier(shiftBy(s.ts[0], f.k ?? rules.ZERO), f.c_tsval), s.ts[1]],
    sack: s.sack?.flat().some(edge => isAfter(edge, limit)) ? undefined : s.sack,
  };
}
