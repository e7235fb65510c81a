import type { Frame } from './pcap.js';

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const ACK = 0x10;

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ETHERTYPE_VLAN = 0x8100;
const PROTOCOL_TCP = 6;

/** TCP header of a captured frame, as a view; `parse` moves it to the next one. Fields mean nothing after `parse` gave false. */
export class TcpView {
  /** Offset of the addresses in the file and the length of each: 4 or 16. */
  addresses = 0;
  addressLength: 4 | 16 = 4;
  sourcePort = 0;
  destinationPort = 0;
  seq = 0;
  ack = 0;
  flags = 0;
  window = 0;
  /** Bytes of payload, from the IP header: frames may be padded, and are cut at the capture's snap length. */
  payload = 0;
  #options = 0;
  #optionsEnd = 0;

  constructor(readonly file: Buffer) {}

  /** False for what is not an unfragmented TCP segment over IPv4 or IPv6 (without extension headers), or is cut too short. */
  parse(frame: Frame): boolean {
    const { file } = this;
    const end = frame.offset + frame.captured;
    let at = frame.offset + 12;
    if (at + 2 > end) return false;
    let type = file.readUInt16BE(at);
    if (type === ETHERTYPE_VLAN && at + 6 <= end) {
      at += 4;
      type = file.readUInt16BE(at);
    }
    at += 2;
    const ip = at;
    let ipEnd: number;
    if (type === ETHERTYPE_IPV4) {
      if (ip + 20 > end || file[ip + 9] !== PROTOCOL_TCP || (file.readUInt16BE(ip + 6) & 0x3fff) !== 0)
        return false;
      const total = file.readUInt16BE(ip + 2);
      this.addresses = ip + 12;
      this.addressLength = 4;
      at = ip + (file[ip]! & 15) * 4;
      // length 0: a segment larger than the field can say, on its way to be cut by the device
      ipEnd = total === 0 ? frame.offset + frame.length : ip + total;
    } else if (type === ETHERTYPE_IPV6) {
      if (ip + 40 > end || file[ip + 6] !== PROTOCOL_TCP) return false;
      const length = file.readUInt16BE(ip + 4);
      this.addresses = ip + 8;
      this.addressLength = 16;
      at = ip + 40;
      ipEnd = length === 0 ? frame.offset + frame.length : at + length;
    } else return false;
    if (at + 20 > end) return false;
    const header = (file[at + 12]! >> 4) * 4;
    this.sourcePort = file.readUInt16BE(at);
    this.destinationPort = file.readUInt16BE(at + 2);
    this.seq = file.readUInt32BE(at + 4);
    this.ack = file.readUInt32BE(at + 8);
    this.flags = file[at + 13]!;
    this.window = file.readUInt16BE(at + 14);
    this.payload = ipEnd - at - header;
    this.#options = at + 20;
    this.#optionsEnd = Math.min(at + header, end);
    return header >= 20 && this.payload >= 0;
  }

  /** Timestamps option (RFC 7323), or undefined. */
  timestamps(): { value: number; echo: number } | undefined {
    const { file } = this;
    for (let at = this.#options; at < this.#optionsEnd; ) {
      const kind = file[at]!;
      if (kind === 0) return undefined;
      if (kind === 1) {
        at++;
        continue;
      }
      const length = file[at + 1]!;
      if (length < 2 || at + length > this.#optionsEnd) return undefined;
      if (kind === 8 && length === 10)
        return { value: file.readUInt32BE(at + 2), echo: file.readUInt32BE(at + 6) };
      at += length;
    }
    return undefined;
  }

  sourceAddress(): string {
    return formatAddress(this.file, this.addresses, this.addressLength);
  }

  destinationAddress(): string {
    return formatAddress(this.file, this.addresses + this.addressLength, this.addressLength);
  }
}

function formatAddress(file: Buffer, at: number, length: number): string {
  if (length === 4) return file.subarray(at, at + 4).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => file.readUInt16BE(at + 2 * i).toString(16));
  return groups
    .join(':')
    .replace(/\b0(:0\b)+/, ':')
    .replace(/:{3,}/, '::');
}

/** Signed distance from `b` to `a` in sequence space (RFC 793 arithmetic, right while they are less than 2^31 apart). */
export function seqDiff(a: number, b: number): number {
  return (a - b) | 0;
}
