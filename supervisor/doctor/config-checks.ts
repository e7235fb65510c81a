import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { type AddressProbe, askNetwork } from '../../hypervisor-shim/platform/address-probe.js';
import { arpProbe } from '../../hypervisor-shim/platform/arp-probe.js';
import { ndProbe } from '../../hypervisor-shim/platform/nd-probe.js';
import { macBytes } from '../../hypervisor-shim/replay/namespace.js';
import { overlaps, parseCidr, parseIpv6 } from '../config/cidr.js';
import type { ServiceConfig } from '../config/config.js';
import { checkConflicts } from '../refusals.js';
import { links } from '../service/ip.js';
import { ServiceNames } from '../service/names.js';
import { checkBridge, serviceMac } from '../service/network.js';
import { checkStorage } from '../service/storage-check.js';
import { type Check, failure, type Look, ok, warning } from './finding.js';
import type { Subject } from './subject.js';

interface Interface {
  ifname: string;
  operstate: string;
  flags: string[];
  address: string;
  ifindex: number;
  addr_info: { local: string; prefixlen: number; family: string }[];
}

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
  const all = await interfaces(['addr', 'show']);
  const looks = [await look4(config, all)];
  if (config.address6 !== undefined) looks.push(await look6(config, config.address6, all));
  return looks;
}

function look4(config: ServiceConfig, all: Interface[]): Promise<Look> {
  const ip = config.address.split('/')[0]!;
  const probe = (mac: Uint8Array) => arpProbe(mac, Uint8Array.from(ip.split('.'), Number));
  return lookFor(config, 'address', ip, all, local => local === ip, probe);
}

function look6(config: ServiceConfig, address6: string, all: Interface[]): Promise<Look> {
  const ip = address6.split('/')[0]!;
  const bytes = parseIpv6(ip)!;
  // The same address may be written in several ways.
  const mine = (local: string) => Buffer.compare(parseIpv6(local) ?? Buffer.alloc(0), bytes) === 0;
  return lookFor(config, 'address6', ip, all, mine, mac => ndProbe(mac, bytes));
}

async function lookFor(
  config: ServiceConfig,
  field: string,
  ip: string,
  all: Interface[],
  isIt: (local: string) => boolean,
  probeFrom: (mac: Uint8Array) => AddressProbe,
): Promise<Look> {
  const mine = all.find(({ addr_info }) => addr_info.some(({ local }) => isIt(local)));
  if (mine) {
    return failure(
      `${field}: ${ip} is this host's own, on ${mine.ifname}`,
      `ip addr del ${ip} dev ${mine.ifname}, or give the service another.`,
    );
  }
  const bridge = all.find(({ ifname }) => ifname === config.uplink.bridge);
  if (!bridge)
    return warning(`${ip} was not looked for: there is no ${config.uplink.bridge}`, 'Make the bridge first.');
  const answer = await askNetwork(bridge.ifindex, probeFrom(macBytes(bridge.address)));
  if (answer === undefined) return ok(`nobody on ${bridge.ifname} has ${ip}`);
  if (answer === serviceMac(config)) return ok(`${ip} is answered by this service itself`);
  return failure(
    `${field}: ${ip} is answered by ${answer} on ${bridge.ifname}`,
    'Give the service an address that nobody has.',
  );
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

async function interfaces(words: string[]): Promise<Interface[]> {
  const { stdout } = await promisify(execFile)('ip', ['-j', ...words], { maxBuffer: 64 << 20 });
  // iproute2 writes `{}` for what it left out.
  return (JSON.parse(stdout || '[]') as Interface[]).filter(({ ifname }) => ifname !== undefined);
}
