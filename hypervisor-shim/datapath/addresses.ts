/** IP addresses as text and as bytes in network order: 4 of them, or 16. */
import { isIPv4, isIPv6 } from 'node:net';
import type { Flow } from './layout.generated.js';

/** Undefined for what is no address; zone identifiers (`%eth0`) are none either. */
export function parseAddress(text: string): Uint8Array | undefined {
  if (isIPv4(text)) return Uint8Array.from(text.split('.'), Number);
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const [head = '', tail] = text.split('::');
  const front = groups(head);
  const back = tail === undefined ? [] : groups(tail);
  return Uint8Array.from([...front, ...new Array(16 - front.length - back.length).fill(0), ...back]);
}

/** Those of services, which each forged frame needs: as many as services have. */
const known = new Map<string, Uint8Array>();

/** As `parseAddress`, for what has been validated before. Not to be written to. */
export function addressBytes(text: string): Uint8Array {
  const bytes = known.get(text) ?? parseAddress(text);
  if (!bytes) throw new RangeError(`no IP address: ${text}`);
  known.set(text, bytes);
  return bytes;
}

const groups = (text: string): number[] =>
  text
    .split(':')
    .filter(Boolean)
    .flatMap(group => {
      if (group.includes('.')) return group.split('.').map(Number);
      const value = Number.parseInt(group, 16);
      return [value >>> 8, value & 255];
    });

/** IPv6 in the form of RFC 5952: lower case, the first longest run of zeros left out. */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const words = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16));
  const runs = [...`${words.map(word => (word === '0' ? '0' : 'x')).join('')}`.matchAll(/00+/g)];
  const longest = runs.reduce<RegExpMatchArray | undefined>(
    (best, run) => (best && best[0].length >= run[0].length ? best : run),
    undefined,
  );
  if (!longest) return words.join(':');
  const at = longest.index!;
  return `${words.slice(0, at).join(':')}::${words.slice(at + longest[0].length).join(':')}`;
}

/** `address:port`, the address in brackets if it has colons itself. */
export const formatEndpoint = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;

/** Link-local address that a guest makes from its MAC (modified EUI-64: RFC 4291, appendix A). */
export function linkLocal(mac: Uint8Array): Uint8Array {
  const [a, b, c, d, e, f] = mac as unknown as [number, number, number, number, number, number];
  return Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f);
}

/** The service's addresses: that of IPv4, and that of IPv6 if it has one. */
export interface ServiceAddresses {
  address: string;
  address6?: string | undefined;
}

/** A flow's client. */
export const clientBytes = (f: Flow): Uint8Array =>
  f.key.family === 6 ? f.key.bytes.slice(0, 16) : f.key.bytes.slice(12, 16);
export const clientAddress = (f: Flow): string => formatAddress(clientBytes(f));

/** The service's address that a flow's client speaks to. */
export function serviceAddress(f: Flow, service: ServiceAddresses): string {
  return f.key.family === 6 ? service.address6! : service.address;
}

/** Ports in flow keys are in network order. */
export const hostPort = (networkOrder: number): number => ((networkOrder & 0xff) << 8) | (networkOrder >>> 8);

export const clientEndpoint = (f: Flow): string => formatEndpoint(clientAddress(f), hostPort(f.key.rport));
