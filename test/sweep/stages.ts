/**
 * The stages of a connection in which a fault can find it. Each is a conversation written down for both ends, with gates
 * in it: at the fault, every connection stands exactly where its stage says, since the flow's own record shows it.
 */
import type { Flow } from '../../hypervisor-shim/datapath/layout.generated.js';
import type { Way } from './injector.js';

/** Both ends send bytes of known content; `take` compares. */
export type Step =
  | ['send', number]
  | ['take', number]
  /** One byte by MSG_OOB; the receiver has SO_OOBINLINE. */
  | ['urgent']
  /** Half-close, and the peer's. */
  | ['end']
  | ['eof']
  /** Waits until the test opens it. In the guest that takes over all are open. */
  | ['gate', string]
  /** The application of the guest that takes over is slow: it goes on only when so many bytes more have come. */
  | ['late', number];

/** What is known of one connection before the fault. */
export interface Seen {
  flow: Flow | undefined;
  /** Gates at which the ends stand or have stood; `open` once connected or accepted. */
  client: Set<string>;
  server: Set<string>;
  /** Frames that a cut has swallowed. */
  cut: number;
}

export interface Cut {
  /** The client's own, or the first guest's. */
  leg: 'client' | 'guest0';
  way: Way;
  what?: 'all' | 'but SYN';
}

export interface Stage {
  client: Step[];
  server: Step[];
  /** The server sends without Nagle's delay. */
  noDelay?: boolean;
  /** SO_RCVBUF of the client, bytes: does not grow then, whatever comes out of order. */
  receiveBuffer?: number;
  /** From the start on. Every cut ends after the failover. */
  cut?: Cut;
  /** What is done at a point on the way: a cut, then a gate of the server opens, and one of the client. */
  arrange?: { when: (s: Seen) => boolean; cut: Cut; server: string; client?: string };
  reached: (s: Seen) => boolean;
}

const ASK = 3000;
const ANSWER = 20_000;
/** More than all buffers on the way take. */
const FLOOD = 500_000;
/** More than a client sends before its first ACK. */
const BURST = 200_000;
const LONG = 1_500_000;
const GO: Step = ['gate', 'go'];
const STOP: Step = ['gate', 'stop'];
const MORE: Step = ['gate', 'more'];
const HALF = ANSWER / 2;
const OVER: Step[] = [['end'], ['eof']];

const flowIs =
  (of: (f: Flow, s: Seen) => boolean) =>
  (s: Seen): boolean =>
    s.flow !== undefined && of(s.flow, s);

const repeat = (n: number, ...steps: Step[]): Step[] => Array.from({ length: n }, () => steps).flat();

export const STAGES: Record<string, Stage> = {
  'SYN not answered': {
    client: [['send', ASK], ['take', ANSWER], ...OVER],
    server: [['take', ASK], ['send', ANSWER], ...OVER],
    cut: { leg: 'guest0', way: 'in' },
    reached: s => s.cut > 0,
  },
  'SYN-ACK lost': {
    client: [['send', ASK], ['take', ANSWER], ...OVER],
    server: [['take', ASK], ['send', ANSWER], ...OVER],
    cut: { leg: 'client', way: 'out' },
    reached: s => s.cut > 0,
  },
  'last ACK of the handshake lost': {
    client: [['send', ASK], ['take', ANSWER], ...OVER],
    server: [['take', ASK], ['send', ANSWER], ...OVER],
    cut: { leg: 'client', way: 'in', what: 'but SYN' },
    reached: s => s.cut > 0 && s.client.has('open'),
  },
  'open, nothing said': {
    client: [GO, ['send', ASK], ['take', ANSWER], ...OVER],
    server: [['take', ASK], ['send', ANSWER], ...OVER],
    reached: flowIs((_, s) => s.client.has('go') && s.server.has('open')),
  },
  'accepted but unread': {
    client: [['send', ASK], ['take', ANSWER], ...OVER],
    server: [STOP, ['take', ASK], ['send', ANSWER], ...OVER],
    reached: flowIs((f, s) => f.g_ack === BigInt(ASK) && s.server.has('stop')),
  },
  'mid-request': {
    client: [['send', ASK / 2], GO, ['send', ASK / 2], ['take', ANSWER], ...OVER],
    server: [['take', ASK], ['send', ANSWER], ...OVER],
    reached: flowIs(f => f.g_ack === BigInt(ASK / 2)),
  },
  'between request and reply': {
    client: [['send', ASK], ['take', ANSWER], ...OVER],
    server: [['take', ASK], STOP, ['send', ANSWER], ...OVER],
    reached: flowIs((f, s) => f.g_ack === BigInt(ASK) && s.server.has('stop')),
  },
  'mid-reply': {
    client: [['send', ASK], ['take', ANSWER], ...OVER],
    server: [['take', ASK], ['send', HALF], STOP, ['send', HALF], ...OVER],
    reached: flowIs(f => f.out_acked === BigInt(HALF)),
  },
  'sent but unacknowledged': {
    client: [['send', ASK], ['take', 2000], GO, ['take', 8000], ...OVER],
    server: [['take', ASK], ['send', 2000], MORE, ['send', 8000], STOP, ...OVER],
    arrange: {
      when: flowIs((f, s) => f.out_acked === 2000n && s.server.has('more') && s.client.has('go')),
      cut: { leg: 'client', way: 'out' },
      server: 'more',
    },
    // the last bytes wait for an ACK (RFC 896), or more of them for the congestion window
    reached: flowIs((f, s) => f.out_acked === 2000n && f.out_sent > 2500n && s.cut > 0),
  },
  'acknowledged ahead of the new guest': {
    noDelay: true,
    client: [['send', ASK], ['take', 2500], GO, ['send', BURST], ['take', ASK], ...OVER],
    server: [
      ...([['take', ASK], ['send', 2000], MORE, ['late', BURST], ['send', 500], STOP] as Step[]),
      ...([['take', BURST], ['send', ASK], ...OVER] as Step[]),
    ],
    arrange: {
      when: flowIs((f, s) => f.out_acked === 2000n && s.server.has('more')),
      cut: { leg: 'client', way: 'in' },
      server: 'more',
    },
    reached: flowIs((f, s) => f.out_acked === 2000n && f.out_sent === 2500n && s.client.has('go')),
  },
  'client has closed its half': {
    client: [['send', ASK], ['end'], ['take', ANSWER], ['eof']],
    server: [['take', ASK], ['eof'], ['send', HALF], STOP, ['send', HALF], ['end']],
    reached: flowIs(
      f => f.fin_in === BigInt(ASK) && f.g_ack === BigInt(ASK + 1) && f.out_acked === BigInt(HALF),
    ),
  },
  'server has closed its half': {
    client: [['take', HALF], ['eof'], ['send', ASK], GO, ['send', ASK], ['end']],
    server: [['send', HALF], ['end'], ['take', 2 * ASK], ['eof']],
    reached: flowIs(f => f.out_acked === BigInt(HALF + 1) && f.g_ack === BigInt(ASK)),
  },
  'both FINs in flight': {
    client: [['send', ASK], ['take', HALF], GO, ['end'], ['eof']],
    server: [['take', ASK], ['send', HALF], MORE, ['end'], ['eof']],
    arrange: {
      when: flowIs((f, s) => f.out_acked === BigInt(HALF) && s.server.has('more') && s.client.has('go')),
      cut: { leg: 'client', way: 'out' },
      server: 'more',
      client: 'go',
    },
    reached: flowIs(
      f => f.fin_out === BigInt(HALF) && f.fin_in === BigInt(ASK) && f.out_acked === BigInt(HALF),
    ),
  },
  idle: {
    client: [['send', ASK], ['take', ANSWER], GO, ['send', ASK], ['take', ANSWER], ...OVER],
    server: [...repeat(2, ['take', ASK], ['send', ANSWER]), ...OVER],
    reached: flowIs((f, s) => f.out_acked === BigInt(ANSWER) && s.client.has('go')),
  },
  'zero window of the server': {
    client: [['send', FLOOD], ['take', ANSWER], ...OVER],
    server: [STOP, ['take', FLOOD], ['send', ANSWER], ...OVER],
    reached: flowIs(f => f.in_end > 20_000n && f.g_ack === f.in_end && f.g_edge - f.in_end < 536n),
  },
  'zero window of the client': {
    receiveBuffer: 65_536,
    client: [['send', ASK], GO, ['take', FLOOD], ...OVER],
    server: [['take', ASK], ['send', FLOOD], ...OVER],
    reached: flowIs(f => f.out_acked > 10_000n && f.c_window < 536),
  },
  'urgent data to the server': {
    client: [['send', ASK], ['urgent'], ['send', ASK], GO, ['send', ASK], ['take', ANSWER], ...OVER],
    server: [['take', 3 * ASK + 1], ['send', ANSWER], ...OVER],
    reached: flowIs(f => f.g_ack === BigInt(2 * ASK + 1)),
  },
  'urgent data to the client': {
    client: [['send', ASK], ['take', 2 * ASK + 1], ['take', ANSWER], ...OVER],
    server: [['take', ASK], ['send', ASK], ['urgent'], ['send', ASK], STOP, ['send', ANSWER], ...OVER],
    reached: flowIs(f => f.out_acked === BigInt(2 * ASK + 1)),
  },
  'urgent data to the client, then more input': {
    client: [['send', ASK], ['take', 2 * ASK + 1], ['send', ASK], ['take', ANSWER], ...OVER],
    server: [
      ...([['take', ASK], ['send', ASK], ['urgent'], ['send', ASK]] as Step[]),
      ...([['take', ASK], STOP, ['send', ANSWER], ...OVER] as Step[]),
    ],
    reached: flowIs((f, s) => f.g_ack === BigInt(2 * ASK) && s.server.has('stop')),
  },
  'server speaks first': {
    client: [['take', 100], ['send', 50], ['take', 100], GO, ['send', 50], ['take', 100], ...OVER],
    server: [['send', 100], ...repeat(2, ['take', 50], ['send', 100]), ...OVER],
    reached: flowIs((f, s) => f.out_acked === 200n && s.client.has('go')),
  },
  'ping-pong': {
    client: [
      ...repeat(10, ['send', 700], ['take', 900]),
      GO,
      ...repeat(10, ['send', 700], ['take', 900]),
      ...OVER,
    ],
    server: [...repeat(20, ['take', 700], ['send', 900]), ...OVER],
    reached: flowIs((f, s) => f.out_acked === 9000n && s.client.has('go')),
  },
  'pipelined requests': {
    client: [['send', 10 * 500], ['take', 10 * 2000], ...OVER],
    server: [
      ...repeat(3, ['take', 500], ['send', 2000]),
      STOP,
      ...repeat(7, ['take', 500], ['send', 2000]),
      ...OVER,
    ],
    reached: flowIs(f => f.g_ack === 5000n && f.out_acked === 6000n),
  },
  'long download': {
    client: [['send', ASK], ['take', 2 * LONG], ...OVER],
    server: [['take', ASK], ['send', LONG], STOP, ['send', LONG], ...OVER],
    reached: flowIs(f => f.out_acked === BigInt(LONG)),
  },
  'long upload': {
    client: [['send', LONG], GO, ['send', LONG], ['take', ANSWER], ...OVER],
    server: [['take', 2 * LONG], ['send', ANSWER], ...OVER],
    reached: flowIs(f => f.g_ack === BigInt(LONG)),
  },
};

export const STAGE_NAMES = Object.keys(STAGES);
export const FIRST_PORT = 7100;

/** Bytes that a script sends. */
export const sends = (steps: readonly Step[]): number =>
  steps.reduce((sum, s) => sum + (s[0] === 'send' ? s[1] : s[0] === 'urgent' ? 1 : 0), 0);
