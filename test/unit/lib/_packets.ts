import { ACK, FIN, RST, SYN } from '../../lib/tcp-view.js';

export const CLIENT = { address: [10, 77, 0, 100], port: 40000 };
export const SERVER = { address: [10, 77, 0, 10], port: 80 };

/** A segment to write: `flags` in letters (S, A, F, R), `length` of payload that is claimed but, as with a snap length, not kept. */
export interface Segment {
  atMs: number;
  toServer: boolean;
  flags: string;
  seq: number;
  length?: number;
  clientPort?: number;
  ipv6?: boolean;
}

/** A pcap file with these segments, headers only, as tcpdump -s writes it. */
export function pcapOf(segments: readonly Segment[]): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt32LE(128, 16);
  header.writeUInt32LE(1, 20);
  return Buffer.concat([header, ...segments.map(record)]);
}

function record(segment: Segment): Buffer {
  const { atMs, toServer, length = 0, ipv6 = false } = segment;
  const ipLength = ipv6 ? 40 : 20;
  const headers = 14 + ipLength + 20;
  const bytes = Buffer.alloc(16 + headers);
  bytes.writeUInt32LE(Math.floor(atMs / 1000), 0);
  bytes.writeUInt32LE(Math.round((atMs % 1000) * 1000), 4);
  bytes.writeUInt32LE(headers, 8);
  bytes.writeUInt32LE(headers + length, 12);
  const [from, to] = toServer ? [CLIENT, SERVER] : [SERVER, CLIENT];
  const ip = 16 + 14;
  bytes.writeUInt16BE(ipv6 ? 0x86dd : 0x0800, 16 + 12);
  if (ipv6) {
    bytes[ip] = 0x60;
    bytes.writeUInt16BE(20 + length, ip + 4);
    bytes[ip + 6] = 6;
    Buffer.from([0xfd, 0x77]).copy(bytes, ip + 8);
    bytes[ip + 23] = from.address[3]!;
    Buffer.from([0xfd, 0x77]).copy(bytes, ip + 24);
    bytes[ip + 39] = to.address[3]!;
  } else {
    bytes[ip] = 0x45;
    bytes.writeUInt16BE(40 + length, ip + 2);
    bytes[ip + 9] = 6;
    Buffer.from(from.address).copy(bytes, ip + 12);
    Buffer.from(to.address).copy(bytes, ip + 16);
  }
  const tcp = ip + ipLength;
  const clientPort = segment.clientPort ?? CLIENT.port;
  bytes.writeUInt16BE(toServer ? clientPort : SERVER.port, tcp);
  bytes.writeUInt16BE(toServer ? SERVER.port : clientPort, tcp + 2);
  bytes.writeUInt32BE(segment.seq >>> 0, tcp + 4);
  bytes[tcp + 12] = 5 << 4;
  const bits = { S: SYN, A: ACK, F: FIN, R: RST } as Record<string, number>;
  bytes[tcp + 13] = [...segment.flags].reduce((sum, letter) => sum | bits[letter]!, 0);
  return bytes;
}
