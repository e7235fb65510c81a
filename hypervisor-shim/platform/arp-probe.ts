import { type AddressProbe, isZero, same } from './address-probe.js';

const ARP_BYTES = 42;
const BROADCAST = new Uint8Array(6).fill(0xff);
const REQUEST = 1;

/** Who has an IPv4 address, asked by `mac`: an ARP probe (RFC 5227), from no address, so that no cache learns anything. */
export function arpProbe(mac: Uint8Array, address: Uint8Array): AddressProbe {
  return {
    protocol: 0x0806,
    frame: arpProbeFrame(mac, address),
    claimedBy(frame) {
      if (frame.length < ARP_BYTES || frame[20] !== 0) return undefined;
      const [sender, from, target] = [frame.slice(22, 28), frame.slice(28, 32), frame.slice(38, 42)];
      if (same(sender, mac)) return undefined;
      // Its own announcement or reply, or a probe of somebody who wants the address as well.
      const claims = same(from, address) || (frame[21] === REQUEST && isZero(from) && same(target, address));
      return claims ? sender : undefined;
    },
  };
}

/** The probe as a frame, from `mac` to everybody or to one MAC. */
export function arpProbeFrame(mac: Uint8Array, address: Uint8Array, to: Uint8Array = BROADCAST): Uint8Array {
  const frame = new Uint8Array(ARP_BYTES);
  frame.set(to, 0);
  frame.set(mac, 6);
  // Ethernet type ARP; hardware Ethernet, protocol IPv4, address lengths 6 and 4, request.
  frame.set([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, REQUEST], 12);
  frame.set(mac, 22);
  frame.set(address, 38);
  return frame;
}
