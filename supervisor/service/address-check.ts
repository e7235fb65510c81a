import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { type AddressProbe, askNetwork } from '../../hypervisor-shim/platform/address-probe.js';
import { arpProbe } from '../../hypervisor-shim/platform/arp-probe.js';
import { ndProbe } from '../../hypervisor-shim/platform/nd-probe.js';
import { macBytes } from '../../hypervisor-shim/replay/namespace.js';
import { parseIpv6 } from '../config/cidr.js';
import { hostAddresses, type ServiceConfig } from '../config/config.js';
import { type Interface, interfaces } from './ip.js';
import { serviceMac } from './network.js';

/** Who has an address that a service is to have. `unknown`: there is no bridge to ask. */
export interface Claim {
  field: 'address' | 'address6';
  ip: string;
  holder: 'nobody' | 'host' | 'service' | 'other' | 'unknown';
  /** The interface that has it, or behind which it is. */
  device: string;
  mac?: string;
}

/** Asks this host and the network of its bridge, 0.6 s for each address. */
export async function lookForAddresses(config: ServiceConfig): Promise<Claim[]> {
  const all = await interfaces(['addr', 'show']);
  const { address, address6 } = hostAddresses(config);
  const bytes = Uint8Array.from(address.split('.'), Number);
  const claims = [
    lookFor(
      config,
      all,
      'address',
      address,
      local => local === address,
      mac => arpProbe(mac, bytes),
    ),
  ];
  if (address6 !== undefined) {
    const bytes6 = parseIpv6(address6)!;
    // The same address may be written in several ways.
    const isIt = (local: string) => Buffer.compare(parseIpv6(local) ?? Buffer.alloc(0), bytes6) === 0;
    claims.push(lookFor(config, all, 'address6', address6, isIt, mac => ndProbe(mac, bytes6)));
  }
  return Promise.all(claims);
}

async function lookFor(
  config: ServiceConfig,
  all: Interface[],
  field: Claim['field'],
  ip: string,
  isIt: (local: string) => boolean,
  probeFrom: (mac: Uint8Array) => AddressProbe,
): Promise<Claim> {
  const mine = all.find(({ addr_info }) => addr_info.some(({ local }) => isIt(local)));
  if (mine) return { field, ip, holder: 'host', device: mine.ifname };
  const device = config.uplink.bridge;
  const bridge = all.find(({ ifname }) => ifname === device);
  if (!bridge) return { field, ip, holder: 'unknown', device };
  const mac = await askNetwork(bridge.ifindex, probeFrom(macBytes(bridge.address)));
  if (mac === undefined) return { field, ip, holder: 'nobody', device };
  return { field, ip, holder: mac === serviceMac(config) ? 'service' : 'other', device, mac };
}

/** What is wrong with an address that somebody has, and what to do. */
export function objection({ field, ip, holder, device, mac }: Claim): { found: string; remedy: string } {
  return holder === 'host'
    ? {
        found: `${field}: ${ip} is this host's own, on ${device}`,
        remedy: `ip addr del ${ip} dev ${device}, or give the service another.`,
      }
    : {
        found: `${field}: ${ip} is answered by ${mac} on ${device}`,
        remedy: 'Give the service an address that nobody has.',
      };
}

/**
 * Throws `HF_ADDRESS_BUSY` if anybody has an address of the service, before there are guests that could: clients would reach now the
 * one, now the other. The service's own MAC is no excuse: it is another host's, that protects the same.
 */
export async function checkAddresses(config: ServiceConfig): Promise<void> {
  for (const claim of await lookForAddresses(config)) {
    if (claim.holder === 'nobody' || claim.holder === 'unknown') continue;
    const { found, remedy } = objection(claim);
    throw new HoldfastError('HF_ADDRESS_BUSY', found, remedy);
  }
}
