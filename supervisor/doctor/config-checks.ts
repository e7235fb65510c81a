import { overlaps, parseCidr } from '../config/cidr.js';
import type { ServiceConfig } from '../config/config.js';
import { checkConflicts } from '../refusals.js';
import { lookForAddresses, objection } from '../service/address-check.js';
import { interfaces, links } from '../service/ip.js';
import { ServiceNames } from '../service/names.js';
import { checkBridge } from '../service/network.js';
import { checkStorage } from '../service/storage-check.js';
import { type Check, failure, type Look, ok, warning } from './finding.js';
import type { Subject } from './subject.js';

/** What one configuration needs of this host. */
export function configChecks(subject: Subject, config: ServiceConfig): Check[] {
  const { bridge } = config.uplink;
  const remedy = `ip link add ${bridge} type bridge; ip link set ${bridge} up`;
  return [
    { name: 'uplink', remedy, look: () => uplink(config) },
    { name: 'address', remedy: `ip link set ${bridge} up`, look: () => address(config) },
    { name: 'management', remedy: 'Choose another management.subnet.', look: () => management(config) },
    { name: 'storage', remedy: '', look: () => storage(subject, config) },
    { name: 'services', remedy: '', look: () => others(subject, config) },
  ];
}

async function uplink({ uplink: { bridge } }: ServiceConfig): Promise<Look> {
  checkBridge(bridge, await links());
  const ports = (await interfaces(['link', 'show', 'master', bridge])).map(({ ifname }) => ifname);
  const { flags } = (await interfaces(['link', 'show', 'dev', bridge]))[0]!;
  if (!flags.includes('UP')) return failure(`${bridge} is down`, `ip link set ${bridge} up`);
  if (ports.length > 0) return ok(`${bridge} is a bridge with ${ports.join(', ')}`);
  return warning(
    `${bridge} is a bridge without ports: only this host reaches the service`,
    `ip link set NIC master ${bridge}`,
  );
}

/** Nobody else may have an address of the service: clients would reach now the one, now the other. */
async function address(config: ServiceConfig): Promise<Look[]> {
  return (await lookForAddresses(config)).map(claim => {
    const { ip, holder, device } = claim;
    if (holder === 'unknown')
      return warning(`${ip} was not looked for: there is no ${device}`, 'Make the bridge first.');
    if (holder === 'nobody') return ok(`nobody on ${device} has ${ip}`);
    if (holder === 'service') return ok(`${ip} is answered by this service itself`);
    const { found, remedy } = objection(claim);
    return failure(found, remedy);
  });
}

/** What a service writes: where it goes, and whether guests could use it. */
async function storage({ services }: Subject, config: ServiceConfig): Promise<Look> {
  const { storage } = config;
  if (storage.mode === 'none') return ok('none: what a guest writes to its disk dies with it');
  const place = storage.mode === 'shared' ? storage.directory : storage.disk;
  const running = services.some(({ name }) => name === config.name);
  if (running) return ok(`${place} is this service's, which runs`);
  await checkStorage(storage);
  return ok(`${place} can be ${storage.mode}, at ${storage.mount}`);
}

async function management(config: ServiceConfig): Promise<Look> {
  const { subnet } = config.management;
  const own = new ServiceNames(config.name).managementBridge;
  for (const { ifname, addr_info } of await interfaces(['-4', 'addr', 'show'])) {
    for (const { local, prefixlen } of addr_info) {
      const cidr = parseCidr(`${local}/${prefixlen}`);
      if (ifname === own || !cidr || !overlaps(cidr, parseCidr(subnet)!)) continue;
      return failure(
        `management.subnet: ${subnet} overlaps ${local}/${prefixlen} on ${ifname}`,
        'Choose another private network.',
      );
    }
  }
  return ok(`${subnet} is free`);
}

async function others({ services }: Subject, config: ServiceConfig): Promise<Look> {
  const rest = services.filter(({ name }) => name !== config.name);
  checkConflicts(config, rest);
  return ok(
    rest.length > 0
      ? `no conflict with ${rest.map(({ name }) => name).join(', ')}`
      : 'no other is configured',
  );
}
