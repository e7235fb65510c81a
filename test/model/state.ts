/**
 * What the data path knows, in the words of bpf/layout.h: the glossary of sequence variables there is this model's too.
 * The rules F1-F6, L1-L8 and P1-P4 are those of the theory of operation (ARCHITECTURE.md, SPECIFICATION.md).
 */
import type { Counter } from '../fixtures/lib/bench.js';
import type { ByteMap } from './byte-map.js';
import type { Position, Seq } from './seq.js';

export type { Counter };

/** What one end offers or accepts in a SYN; `wscale` is undefined where it does not scale. */
export interface Options {
  mss?: number;
  wscale?: number;
  sack?: boolean;
  ts?: boolean;
}

/** A TCP segment between the client's port and the service. */
export interface Segment {
  port: number;
  seq: Seq;
  ack: Seq;
  /** One letter each: S A F R P U, and E W for ECN. */
  flags: string;
  /** As in the header, not scaled. */
  window: number;
  /** TSval and TSecr. */
  ts?: [Seq, Seq] | undefined;
  sack?: [Seq, Seq][] | undefined;
  /** In a SYN: what it offers. */
  offer?: Options;
  /** The urgent pointer. */
  urgent?: number;
  data: Buffer;
  /** The checksum is wrong. */
  damaged?: boolean;
}

/** Where a segment goes, as it leaves; or the counter that says why it does not, and what its sender hears instead. */
export type Outcome =
  | { dropped: Counter; answer?: Segment | undefined }
  | { guest: number; segment: Segment }
  | { wire?: Segment; replay?: Segment };

export interface Slot {
  /** Undefined: fenced. */
  epoch: number | undefined;
  listening: boolean;
}

export interface Handshake {
  c_isn: Seq;
  client: Options;
  ecn: boolean;
  c_tsval: Seq;
  /** Whom the SYN was given to; once answered, who answered. */
  slot: number;
  answer?: {
    epoch: number;
    s_isn: Seq;
    server: Options;
    guest: Options;
    s_tsval: Seq;
    g_tsval: Seq;
    window: number;
    d: Seq;
    t: Seq;
  };
}

export type State = 'TRACKED' | 'REPLAYING' | 'SPLICED' | 'CLOSED' | 'DIVERGED';

export interface Mark {
  in: Position;
  out: Position;
  urgent: boolean;
}

export interface Flow {
  state: State;
  owner: number;
  epoch: number;
  /** Whether client and guest count differently: after a failover, or for a flow that was born spliced. */
  translated: boolean;
  rst_in: boolean;
  c_isn: Seq;
  s_isn: Seq;
  client: Options;
  ecn: boolean;
  server: Options;
  guest: Options;
  in_base: Position;
  /** Input segments below this index are not in memory any more: trimmed, or spilled. */
  in_first: number;
  in_acked: Position;
  fin_in: Position | undefined;
  /** The log: presence and content; `in_end` is derived from it (L3). */
  input: ByteMap;
  in_end: Position;
  marks: Mark[];
  mark_out: Position;
  mark_in: Position;
  urg_in: Position;
  out_base: Position;
  out_acked: Position;
  out_sent: Position;
  fin_out: Position | undefined;
  captured: ByteMap;
  compare_end: Position;
  head_start: Position;
  head_in: Position;
  g_ack: Position;
  g_edge: Position;
  g_snd_nxt: Position;
  g_isn: Seq;
  d: Seq;
  t: Seq;
  k: Seq | undefined;
  replay_wscale: number;
  answered: boolean;
  c_tsval: Seq;
  /** Of the newest segment that began where the client was acknowledged (RFC 7323, 4.3). */
  ts_recent: Seq;
  s_tsval: Seq;
  g_tsval: Seq;
  g_tsval_first: Seq;
  /** Bytes. */
  c_window: number;
  failovers: number;
  diverged_at: Position;
  divergence: 'NOT' | 'CONTENT' | 'LONGER' | 'SHORTER';
  /** Closed because it could not be kept: its client is reset wherever it stands. */
  lost: boolean;
  /** It went on without the log: the next fault ends it. */
  unlogged: boolean;
  /** It is to leave its guest where a new exchange begins. */
  leaves: boolean;
}

/** The whole data path of one service. */
export interface Ssw {
  active: number | undefined;
  slots: Slot[];
  compare: 'sampled' | 'full';
  /** Where samples lie is drawn from it. */
  seed: bigint;
  handshakes: Map<number, Handshake>;
  /** By the client's port: all else of the tuple is the same. */
  flows: Map<number, Flow>;
  /** Counters raised by the present step. */
  counted: Counter[];
}
