/** Frames that Holdfast itself makes: forged ACKs that wake a guest or a client, and resets of lost connections. */
import { addressBytes, clientBytes, hostPort, type ServiceAddresses, serviceAddress } from './addresses.js';
import type { Flow } from './layout.generated.js';
import { OPTION } from './layout.generated.js';
import {
  addSeq,
  inSeq,
  inTotal,
  minPosition,
  outSeq,
  type Seq,
  seqDistance,
  toSeq,
  windowShift,
} from './positions.js';

export const TCP_FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;

export interface TcpSegment {
  destinationMac: Uint8Array;
  sourceMac: Uint8Array;
  /** Both addresses of 4 bytes, or both of 16. */
  source: { address: Uint8Array; port: number };
  destination: { address: Uint8Array; port: number };
  seq: Seq;
  ack: Seq;
  flags: number;
  /** As in the header: already scaled. */
  window: number;
  timestamps?: { value: Seq; echo: Seq };
  payload?: Uint8Array;
}

function onesComplement(bytes: Uint8Array, sum = 0): number {
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** The IP header in front of `length` bytes of TCP. */
function ipHeader(s: TcpSegment, length: number): Buffer {
  const [from, to] = [s.source.address, s.destination.address];
  if (from.length === 16) {
    const ip = Buffer.alloc(40);
    ip[0] = 0x60;
    ip.writeUInt16BE(length, 4);
    ip[6] = 6;
    ip[7] = 64;
    ip.set(from, 8);
    ip.set(to, 24);
    return ip;
  }
  const ip = Buffer.alloc(20);
  ip[0] = 0x45;
  ip.writeUInt16BE(20 + length, 2);
  ip.writeUInt16BE(0x4000, 6); // don't fragment
  ip[8] = 64;
  ip[9] = 6;
  ip.set(from, 12);
  ip.set(to, 16);
  ip.writeUInt16BE(~onesComplement(ip) & 0xffff, 10);
  return ip;
}

/** An Ethernet frame with one TCP segment over IPv4 or IPv6, checksums filled in (RFC 1071). */
export function buildSegment(s: TcpSegment): Buffer {
  const header = s.timestamps ? 32 : 20;
  const payload = s.payload ?? new Uint8Array(0);
  const ip = ipHeader(s, header + payload.length);
  const frame = Buffer.alloc(14 + ip.length + header + payload.length);
  frame.set(s.destinationMac.subarray(0, 6), 0);
  frame.set(s.sourceMac.subarray(0, 6), 6);
  frame.writeUInt16BE(ip.length === 40 ? 0x86dd : 0x0800, 12);
  frame.set(ip, 14);

  const tcp = frame.subarray(14 + ip.length);
  tcp.writeUInt16BE(s.source.port, 0);
  tcp.writeUInt16BE(s.destination.port, 2);
  tcp.writeUInt32BE(s.seq, 4);
  tcp.writeUInt32BE(s.ack, 8);
  tcp[12] = (header / 4) << 4;
  tcp[13] = s.flags;
  tcp.writeUInt16BE(s.window, 14);
  if (s.timestamps) {
    tcp.writeUInt32BE(0x0101080a, 20);
    tcp.writeUInt32BE(s.timestamps.value, 24);
    tcp.writeUInt32BE(s.timestamps.echo, 28);
  }
  tcp.set(payload, header);
  const addresses = ip.subarray(ip.length === 40 ? 8 : 12);
  const pseudo = onesComplement(addresses, 6 + tcp.length);
  tcp.writeUInt16BE(~onesComplement(tcp, pseudo) & 0xffff, 16);
  return frame;
}

interface Ends extends ServiceAddresses {
  guestMac: Uint8Array;
}

const clientEnd = (f: Flow) => ({ address: clientBytes(f), port: hostPort(f.key.rport) });
const serverEnd = (f: Flow, ends: Ends) => ({
  address: addressBytes(serviceAddress(f, ends)),
  port: hostPort(f.key.lport),
});

/**
 * ACKs from the client to a guest that has just been spliced: the first carries the client's real window and what it has
 * acknowledged; the second lies just below the guest's window, so the guest answers it at once, and that duplicate ACK
 * frees a client that sits in retransmission back-off.
 */
export function forgedAcks(f: Flow, ends: Ends): Buffer[] {
  const acked = minPosition(f.out_acked, f.g_snd_nxt);
  const shift = windowShift(f.client.wscale);
  const base = {
    destinationMac: ends.guestMac,
    sourceMac: f.c_mac.slice(0, 6),
    source: clientEnd(f),
    destination: serverEnd(f, ends),
    ack: addSeq(outSeq(f, acked), -f.d),
    flags: TCP_FLAG.ACK,
    window: Math.min(f.c_window >>> shift, 65535),
    ...(f.guest.flags & OPTION.TS && f.client.flags & OPTION.TS
      ? { timestamps: { value: toSeq(f.c_tsval), echo: toSeq(f.g_tsval) } }
      : {}),
  };
  const next = inSeq(f, inTotal(f));
  return [buildSegment({ ...base, seq: next }), buildSegment({ ...base, seq: addSeq(next, -1) })];
}

const toClient = (f: Flow, ends: Ends) => ({
  destinationMac: f.c_mac.slice(0, 6),
  sourceMac: ends.guestMac,
  source: serverEnd(f, ends),
  destination: clientEnd(f),
});

/**
 * The ACK that a client gets of a flow that has just been spliced: everything it sent is acknowledged, and the window that it
 * was told to be closed is open. The guest says the same when the forged ACKs reach it; this does not wait for its CPU.
 */
export function openWindow(f: Flow, ends: Ends): Buffer {
  const room = f.g_edge > f.in_acked ? Number(f.g_edge - f.in_acked) : 0;
  return buildSegment({
    ...toClient(f, ends),
    seq: outSeq(f, f.out_sent),
    ack: inSeq(f, f.in_acked),
    flags: TCP_FLAG.ACK,
    window: Math.min(room >>> windowShift(f.server.wscale), 65535),
    ...(f.client.flags & f.server.flags & OPTION.TS
      ? { timestamps: { value: toSeq(f.s_tsval), echo: toSeq(f.c_tsval) } }
      : {}),
  });
}

/**
 * Resets of a lost connection, to the client. Only the one at exactly what it expects next is believed (RFC 5961): that is
 * what it has acknowledged, or all that was sent, if an ACK is on its way. In between the client asks back, and the data path
 * answers with a reset at the place that it names.
 */
export function resetsToClient(f: Flow, ends: Ends): Buffer[] {
  const expected = f.out_sent === f.out_acked ? [f.out_acked] : [f.out_acked, f.out_sent];
  return expected.map(position =>
    buildSegment({
      ...toClient(f, ends),
      seq: outSeq(f, position),
      ack: inSeq(f, inTotal(f)),
      flags: TCP_FLAG.RST | TCP_FLAG.ACK,
      window: 0,
    }),
  );
}

/**
 * Resets to a guest that may hold a replay that was broken off, which it believes at its last ACK, or at the start while its
 * SYN-ACK is unanswered.
 */
export const resetsOfReplay = (f: Flow, ends: Ends): Buffer[] => [
  resetToGuest(f, ends),
  resetToGuest(f, ends, f.in_base),
];

/**
 * Resets to what is left in the guest of a connection whose process died: at `rcvNxt`, as the guest told it, if that can be, and behind a
 * FIN that came after it.
 */
export function resetsOfCrashed(f: Flow, ends: Ends, rcvNxt: number): Buffer[] {
  const told = f.g_ack + BigInt(seqDistance(rcvNxt, inSeq(f, f.g_ack)));
  const total = inTotal(f);
  const position = told >= f.g_ack && told <= total ? told : f.g_ack;
  const resets = [resetToGuest(f, ends, position)];
  if (total !== position) resets.push(resetToGuest(f, ends, total));
  return resets;
}

/** A reset to the guest that holds a half-replayed or diverged connection. */
export function resetToGuest(f: Flow, ends: Ends, position = f.g_ack): Buffer {
  return buildSegment({
    destinationMac: ends.guestMac,
    sourceMac: f.c_mac.slice(0, 6),
    source: clientEnd(f),
    destination: serverEnd(f, ends),
    seq: inSeq(f, position),
    ack: toSeq(0),
    flags: TCP_FLAG.RST,
    window: 0,
  });
}
