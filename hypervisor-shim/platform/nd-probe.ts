import { type AddressProbe, isZero, same } from './address-probe.js';

const SOLICITATION = 135;
const ADVERTISEMENT = 136;
const ICMPV6 = 58;
/** Ethernet 14, IPv6 40, ICMPv6 with a target 24. */
const FRAME_BYTES = 78;
const TARGET = 62;

/** Who has an IPv6 address, asked by `mac` as in duplicate address detection (RFC 4862, 5.4.2): from no address. */
export function ndProbe(mac: Uint8Array, address: Uint8Array): AddressProbe {
  return {
    protocol: 0x86dd,
    frame: probeFrame(mac, address),
    claimedBy(frame) {
      if (frame.length < FRAME_BYTES || frame[20] !== ICMPV6 || frame[21] !== 255) return undefined;
      const [from, sender] = [frame.slice(22, 38), frame.slice(6, 12)];
      if (same(sender, mac) || !same(frame.slice(TARGET, TARGET + 16), address)) return undefined;
      // An advertisement, or a probe of somebody who wants the address as well.
      const claims = frame[54] === ADVERTISEMENT || (frame[54] === SOLICITATION && isZero(from));
      return claims ? sender : undefined;
    },
  };
}

function probeFrame(mac: Uint8Array, address: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(FRAME_BYTES);
  const low = address.subarray(13);
  // The solicited-node multicast group of the address, as MAC and as IPv6 address (RFC 4291, 2.7.1).
  frame.set([0x33, 0x33, 0xff, ...low], 0);
  frame.set(mac, 6);
  frame.set([0x86, 0xdd, 0x60, 0, 0, 0, 0, FRAME_BYTES - 54, ICMPV6, 255], 12);
  frame.set([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...low], 38);
  frame[54] = SOLICITATION;
  frame.set(address, TARGET);
  frame.writeUInt16BE(checksum(frame.subarray(22)), 56);
  return frame;
}

/** RFC 8200, 8.1: over both addresses and the message, which are one run here, its length and its protocol. */
function checksum(bytes: Buffer): number {
  let sum = bytes.length - 32 + ICMPV6;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
