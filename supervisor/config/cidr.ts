import { parseAddress } from '../../hypervisor-shim/datapath/addresses.js';

/** An IPv4 address with its network, all as unsigned 32-bit numbers. */
export interface Cidr {
  address: number;
  prefix: number;
  network: number;
  broadcast: number;
}

/** Dotted quad without leading zeros (`010` is octal to some tools and decimal to others), or undefined. */
export function parseIpv4(text: string): number | undefined {
  const octets = text.split('.');
  if (
    octets.length !== 4 ||
    !octets.every(octet => /^(0|[1-9]\d{0,2})$/.test(octet) && Number(octet) <= 255)
  ) {
    return undefined;
  }
  return octets.reduce((sum, octet) => sum * 256 + Number(octet), 0);
}

/** `a.b.c.d/prefix`, host bits allowed, or undefined. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^([\d.]+)\/(\d{1,2})$/.exec(text);
  const address = match ? parseIpv4(match[1]!) : undefined;
  const prefix = Number(match?.[2]);
  if (address === undefined || prefix > 32) {
    return undefined;
  }
  const size = 2 ** (32 - prefix);
  const network = address - (address % size);
  return { address, prefix, network, broadcast: network + size - 1 };
}

/** Back to a dotted quad. */
export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map(shift => (address >>> shift) & 255).join('.');
}

/** A host address: neither the network's own nor its broadcast address. */
export function isHostOf(network: Cidr, address: number): boolean {
  return address > network.network && address < network.broadcast;
}

/** Two networks that share an address cannot be told apart by routing. */
export function overlaps(one: Cidr, other: Cidr): boolean {
  return one.network <= other.broadcast && other.network <= one.broadcast;
}

/** An IPv6 address with its network's prefix length; the address as 16 bytes. */
export interface Cidr6 {
  address: Uint8Array;
  prefix: number;
}

/** 16 bytes, or undefined: no zone, no IPv4. */
export function parseIpv6(text: string): Uint8Array | undefined {
  const bytes = parseAddress(text);
  return bytes?.length === 16 ? bytes : undefined;
}

/** `address/prefix`, host bits allowed, or undefined. */
export function parseCidr6(text: string): Cidr6 | undefined {
  const [, host, digits] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const address = host === undefined ? undefined : parseIpv6(host);
  const prefix = Number(digits);
  return address && prefix <= 128 ? { address, prefix } : undefined;
}

/** Whether an address has the bits of a network in front, and others behind them than zeros (that is its routers' anycast). */
export function isHostOf6(network: Cidr6, address: Uint8Array): boolean {
  const bit = (bytes: Uint8Array, i: number) => (bytes[i >>> 3]! >>> (7 - (i & 7))) & 1;
  const bits = Array.from({ length: 128 }, (_, i) => i);
  const { prefix } = network;
  return (
    bits.slice(0, prefix).every(i => bit(address, i) === bit(network.address, i)) &&
    bits.slice(prefix).some(i => bit(address, i) === 1)
  );
}

/** fe80::/10: good for a gateway, and of no use to clients beyond the link. */
export const isLinkLocal6 = (address: Uint8Array): boolean =>
  address[0] === 0xfe && (address[1]! & 0xc0) === 0x80;

/** An address that clients anywhere can have a connection with: no multicast, link-local, loopback, mapped IPv4 (::/8). */
export const isUnicast6 = (address: Uint8Array): boolean =>
  address[0] !== 0 && address[0] !== 0xff && !isLinkLocal6(address);
