import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { formatIpv4, parseCidr } from '../config/cidr.js';
import type { ServiceConfig } from '../config/config.js';
import { ipBatch, type Link, links, silenceIpv6 } from './ip.js';
import { macFor, type ServiceNames } from './names.js';

/** What a guest's slot has on the network. */
export interface SlotNetwork {
  tap: string;
  ifindex: number;
  mac: string;
  managementTap: string;
  managementMac: string;
  /** `address/prefix` on the management network. */
  managementAddress: string;
}

/**
 * The host's side of a service's network, in the supervisor's own network namespace:
 *
 *   uplink bridge --- wirePeer [data path] tap a, tap b, ...      management bridge --- tap ma, tap mb, ...
 *
 * The taps of the service network are on no bridge; the data path moves their frames.
 */
export class ServiceNetwork {
  private constructor(
    private readonly names: ServiceNames,
    private readonly config: ServiceConfig,
    readonly wireIfindex: number,
    readonly portIfindex: number,
    private readonly mtu: number,
  ) {}

  /** Same for all guests of the service. Of the address too, for two hosts of one LAN may use one name. */
  get mac(): string {
    return serviceMac(this.config);
  }

  /** Throws `HF_UPLINK_MISSING`, `HF_UPLINK_NO_BRIDGE` or `HF_NETWORK`; call `removeNetwork` then. */
  static async create(names: ServiceNames, config: ServiceConfig): Promise<ServiceNetwork> {
    const { bridge } = config.uplink;
    const { mtu } = checkBridge(bridge, await links());
    const { wire, wirePeer, managementBridge } = names;
    await ipBatch([
      // A bridge takes the smallest MTU of its ports: ours must not lower it.
      `link add ${wire} mtu ${mtu} type veth peer name ${wirePeer} mtu ${mtu}`,
      `link add ${managementBridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0 nf_call_iptables 0 nf_call_ip6tables 0 nf_call_arptables 0`,
    ]);
    for (const device of [wire, wirePeer, managementBridge]) silenceIpv6(device);
    await ipBatch([
      `link set ${wirePeer} master ${bridge} up`,
      `link set ${wire} up`,
      `addr add ${managementAddress(config, 1)} dev ${managementBridge}`,
      `link set ${managementBridge} up`,
    ]);
    return ServiceNetwork.of(names, config, await links(), mtu);
  }

  /** What a supervisor made before. Throws as `create` does. */
  static async adopt(names: ServiceNames, config: ServiceConfig): Promise<ServiceNetwork> {
    const all = await links();
    const { mtu } = checkBridge(config.uplink.bridge, all);
    return ServiceNetwork.of(names, config, all, mtu);
  }

  private static of(names: ServiceNames, config: ServiceConfig, all: Link[], mtu: number): ServiceNetwork {
    const [wire, port] = [ifindexOf(all, names.wire), ifindexOf(all, names.wirePeer)];
    return new ServiceNetwork(names, config, wire, port, mtu);
  }

  /** Interface index of the tap of a slot that was made before. */
  async slotIfindex(slot: number): Promise<number> {
    return ifindexOf(await links(), this.names.tap(slot));
  }

  /** Makes the taps of a slot, anew if they were left over. */
  async addSlot(slot: number): Promise<SlotNetwork> {
    const [tap, managementTap] = [this.names.tap(slot), this.names.managementTap(slot)];
    await this.removeSlot(slot);
    await ipBatch([
      `tuntap add dev ${tap} mode tap vnet_hdr`,
      `tuntap add dev ${managementTap} mode tap vnet_hdr`,
    ]);
    for (const device of [tap, managementTap]) silenceIpv6(device);
    await ipBatch([
      `link set ${tap} mtu ${this.mtu} txqueuelen 1000 up`,
      `link set ${managementTap} txqueuelen 1000 master ${this.names.managementBridge} up`,
    ]);
    return {
      tap,
      ifindex: ifindexOf(await links(), tap),
      mac: this.mac,
      managementTap,
      managementMac: macFor(this.config.name, this.config.address, 'management', slot),
      managementAddress: managementAddress(this.config, slotHost(slot)),
    };
  }

  async removeSlot(slot: number): Promise<void> {
    await removeDevices([this.names.tap(slot), this.names.managementTap(slot)]);
  }
}

export const serviceMac = (config: ServiceConfig): string => macFor(config.name, config.address);

/** Removes all interfaces of a service that there are. */
export async function removeNetwork(names: ServiceNames): Promise<void> {
  await removeDevices(names.devices);
}

async function removeDevices(wanted: string[]): Promise<void> {
  const present = new Set((await links()).map(link => link.ifname));
  const doomed = wanted.filter(name => present.has(name));
  // One by one: the two ends of a pair go together, and the second is then missing.
  for (const name of doomed) {
    await ipBatch([`link del ${name}`]).catch(async error => {
      if ((await links()).some(link => link.ifname === name)) throw error;
    });
  }
}

/** Throws `HF_UPLINK_MISSING` or `HF_UPLINK_NO_BRIDGE` unless it is a bridge. */
export function checkBridge(bridge: string, all: Link[]): Link {
  const link = all.find(candidate => candidate.ifname === bridge);
  if (link === undefined) {
    throw new HoldfastError(
      'HF_UPLINK_MISSING',
      `uplink.bridge: there is no interface ${bridge} in the supervisor's network namespace`,
      `Create it (\`ip link add ${bridge} type bridge\`), attach the host's NIC to it, or name another bridge.`,
    );
  }
  if (link.linkinfo?.info_kind !== 'bridge') {
    throw new HoldfastError(
      'HF_UPLINK_NO_BRIDGE',
      `uplink.bridge: ${bridge} is no Linux bridge but ${link.linkinfo?.info_kind ?? 'a plain interface'}`,
      'Name a Linux bridge.',
    );
  }
  return link;
}

function ifindexOf(all: Link[], name: string): number {
  const link = all.find(candidate => candidate.ifname === name);
  if (link === undefined) {
    throw new HoldfastError('HF_NETWORK', `interface ${name} vanished`, 'Look who else manages interfaces.');
  }
  return link.ifindex;
}

/** Number of a slot's guest in the management network. */
export const slotHost = (slot: number): number => 2 + slot;

/** The `host`th address of the management network: 1 is this host, 2 and up are the slots. */
export function managementAddress(config: ServiceConfig, host: number): string {
  const cidr = parseCidr(config.management.subnet);
  if (cidr === undefined) throw new RangeError(`management.subnet ${config.management.subnet}`);
  return `${formatIpv4(cidr.network + host)}/${cidr.prefix}`;
}
