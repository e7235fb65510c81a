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
