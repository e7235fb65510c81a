/** F5: user space changes a flow only by transitions, compare-and-set on what it believes. */
import type { OP, RESULT } from '../../hypervisor-shim/datapath/layout.generated.js';
import * as rules from './rules.js';
import type { Position } from './seq.js';
import type { Flow, Ssw } from './state.js';

export interface Change {
  op: Exclude<keyof typeof OP, 'FILL'>;
  port: number;
  /** Of another generation than the flow's. */
  stale?: boolean;
  slot?: number;
  epoch?: number;
  in_end?: Position;
  out?: Position;
  /** SPILL: the segments [first, first + count). */
  first?: number;
  count?: number;
}

export function controlFlow(m: Ssw, c: Change): keyof typeof RESULT {
  const f = m.flows.get(c.port);
  if (!f || c.stale) return 'STALE';
  switch (c.op) {
    case 'REPLAY':
      return replay(f, c);
    case 'SPLICE':
      return splice(m, f, c);
    case 'TRIM':
      return trim(f, c.in_end ?? 0, c.out ?? 0);
    case 'SPILL':
      return spill(m, f, c.first ?? 0, c.count ?? 0);
    case 'HOLD':
      return hold(f, c);
    case 'YIELD':
      return yieldAt(f, c);
    case 'LEAVE':
      if (f.owner !== c.slot || f.epoch !== (c.epoch ?? 0)) return 'STALE';
      f.leaves = (c.count ?? 0) !== 0;
      return 'DONE';
    case 'LOSE':
    case 'CLOSE':
      f.lost ||= c.op === 'LOSE';
      f.state = 'CLOSED';
      return 'DONE';
    case 'REAP':
      if (f.state !== 'CLOSED') return 'STALE';
      m.flows.delete(c.port);
      m.counted.push('CLOSED');
      return 'DONE';
  }
}

function replay(f: Flow, c: Change): 'DONE' | 'STALE' {
  if (f.state === 'CLOSED' || f.state === 'DIVERGED' || f.unlogged) return 'STALE';
  if (f.epoch !== c.epoch) f.failovers++; // another try with the same guest is none
  f.state = 'REPLAYING';
  f.owner = c.slot ?? 0;
  f.epoch = c.epoch ?? 0;
  f.answered = false;
  f.translated = true;
  f.replay_wscale = 0;
  f.k = undefined;
  f.leaves = false;
  f.compare_end = Math.max(f.compare_end, f.out_sent); // P2: whatever was ever sent
  return 'DONE';
}

/** Its guest has lost this one flow, and serves the others. */
function hold(f: Flow, c: Change): 'DONE' | 'STALE' {
  if (f.state === 'CLOSED' || f.state === 'DIVERGED') return 'STALE';
  if (f.owner !== c.slot || f.epoch === 0 || f.epoch !== c.epoch) return 'STALE';
  f.epoch = 0;
  f.leaves = false;
  return 'DONE';
}

/** As `hold`, where nothing is under way; and it begins anew there. */
function yieldAt(f: Flow, c: Change): 'DONE' | 'STALE' | 'MORE_INPUT' {
  const input = f.in_end === c.in_end && f.g_ack === f.in_end && f.input.end <= f.in_end;
  const output = f.out_sent === c.out && f.out_acked === f.out_sent;
  const goesOn = f.fin_in === undefined && f.fin_out === undefined && !f.unlogged;
  if (!input || !output || !goesOn) return 'MORE_INPUT';
  if (hold(f, c) === 'STALE') return 'STALE';
  f.in_base = f.in_end;
  f.out_base = f.out_sent;
  f.in_first = Math.max(f.in_first, rules.inputIndex(f.in_base));
  return 'DONE';
}

/** The guest stands where the client believes the server to stand: all input taken, all that the client has said again. */
function splice(m: Ssw, f: Flow, c: Change): keyof typeof RESULT {
  if (f.state !== 'REPLAYING') return 'STALE';
  if (!rules.isCurrent(m, f)) return 'FENCED';
  if (f.in_end !== c.in_end) return 'MORE_INPUT';
  if (!f.answered || f.g_ack !== rules.inTotal(f)) return 'WAIT_INPUT';
  if (f.g_snd_nxt < f.out_acked) return 'WAIT_OUTPUT';
  f.state = 'SPLICED';
  f.in_acked = f.g_ack; // user space tells the client at once
  rules.closeIfDone(f);
  return 'DONE';
}

/** L5: an atomic pair, of input that the guest has taken and output that the client has; it only moves ahead. */
function trim(f: Flow, input: Position, output: Position): 'DONE' | 'STALE' {
  const inside = input >= f.in_base && input <= Math.min(f.g_ack, f.in_end);
  if (!inside || output < f.out_base || output > f.out_acked) return 'STALE';
  f.in_base = input;
  f.out_base = output;
  f.in_first = Math.max(f.in_first, rules.inputIndex(input));
  return 'DONE';
}

/** L6: whole segments that the guest has acknowledged, in order, of a flow that is served: no replay can be reading them. */
function spill(m: Ssw, f: Flow, first: number, count: number): keyof typeof RESULT {
  const served = f.state === 'TRACKED' || f.state === 'SPLICED';
  if (!served || f.unlogged || f.in_first !== first) return 'STALE';
  if (!rules.isCurrent(m, f)) return 'FENCED';
  const done = rules.inputIndex(Math.min(f.g_ack, f.in_end));
  if (count < 1 || count > 32 || first + count > done) return 'WAIT_INPUT';
  f.in_first = first + count;
  return 'DONE';
}
