/** Frames that Holdfast itself makes: forged ACKs that wake a guest or a client, and resets of lost connections. */
import type { Flow } from './layout.generated.js';
import { OPTION } from './layout.generated.js';
import { addSeq, inSeq, inTotal, minPosition, outSeq, type Seq, toSeq, windowShift } from './positions.js';

export const TCP_FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;

export interface Ipv4Segment {
  destinationMac: Uint8Array;
  sourceMac: Uint8Array;
  /** Addresses and ports in network order, as the flow key has them. */
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

/** An Ethernet frame with one TCP segment over IPv4, checksums filled in (RFC 1071). */
export function buildSegment(s: Ipv4Segment): Buffer {
  const header = s.timestamps ? 32 : 20;
  const payload = s.payload ?? new Uint8Array(0);
  const frame = Buffer.alloc(14 + 20 + header + payload.length);
  frame.set(s.destinationMac.subarray(0, 6), 0);
  frame.set(s.sourceMac.subarray(0, 6), 6);
  frame.writeUInt16BE(0x0800, 12);

  const ip = frame.subarray(14, 34);
  ip[0] = 0x45;
  ip.writeUInt16BE(20 + header + payload.length, 2);
  ip.writeUInt16BE(0x4000, 6); // don't fragment
  ip[8] = 64;
  ip[9] = 6;
  ip.set(s.source.address, 12);
  ip.set(s.destination.address, 16);
  ip.writeUInt16BE(~onesComplement(ip) & 0xffff, 10);

  const tcp = frame.subarray(34);
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
  const pseudo = onesComplement(ip.subarray(12, 20), 6 + tcp.length);
  tcp.writeUInt16BE(~onesComplement(tcp, pseudo) & 0xffff, 16);
  return frame;
}

interface Ends {
  guestMac: Uint8Array;
  address: Uint8Array;
}

const swap16 = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);
const clientEnd = (f: Flow) => ({
  address: f.key.bytes.slice(12, 16),
  port: swap16(f.key.rport),
});
const serverEnd = (f: Flow, ends: Ends) => ({ address: ends.address, port: swap16(f.key.lport) });

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

/** A reset of a lost connection, to the client: exactly at what it expects next, so that it is believed. */
export function resetToClient(f: Flow, ends: Ends): Buffer {
  return buildSegment({
    destinationMac: f.c_mac.slice(0, 6),
    sourceMac: ends.guestMac,
    source: serverEnd(f, ends),
    destination: clientEnd(f),
    seq: outSeq(f, f.out_acked),
    ack: inSeq(f, inTotal(f)),
    flags: TCP_FLAG.RST | TCP_FLAG.ACK,
    window: 0,
  });
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
