/** What a guest says that lies, what an attacker beside a client guesses, and how to tell what should not have come through. */
import {
  clientAddress,
  formatAddress,
  hostPort,
  linkLocal,
} from '../../../hypervisor-shim/datapath/addresses.js';
import { inSeq, outSeq } from '../../../hypervisor-shim/datapath/positions.js';
import { icmpv4, ipv6 } from '../../fixtures/lib/icmp.js';
import { isIpv6 } from '../../fixtures/lib/layout.js';
import { nop, timestamps } from '../../fixtures/lib/options.js';
import { buildFrame } from '../../fixtures/lib/segment.js';
import { addressBytes, macBytes } from '../../fixtures/lib/service.js';
import { SERVICE_ADDRESS, SERVICE_ADDRESS6 } from '../../lib/lab.js';
import { GUEST_MAC, type NetnsBed } from './bed.js';
import { CHAT } from './peer.js';

const LINK_LOCAL = formatAddress(linkLocal(macBytes(GUEST_MAC)));

const NOTHING = { seq: 77, ack: 99, window: 500, options: Buffer.alloc(0), data: Buffer.from('planted') };
const FLAGS = ['S', 'SA', 'A', 'PA', 'FA', 'R', 'RA'];

export interface Victim {
  mac: string;
  address: string;
  address6: string;
}

function arp(claimed: string, mac: string, to: Victim, operation: 1 | 2): Buffer {
  const own = macBytes(mac);
  return Buffer.concat([
    ...[macBytes(to.mac), own, Buffer.of(8, 6, 0, 1, 8, 0, 6, 4, 0, operation)],
    ...[own, addressBytes(claimed), macBytes(to.mac), addressBytes(to.address), Buffer.alloc(18)],
  ]);
}

/** Neighbour discovery that names `target` and gives it the guest's MAC; 134: router advertisement, 137: redirect. */
function discovery(type: 134 | 135 | 136 | 137, target: string, from: string, to: Victim): Buffer {
  const body = Buffer.alloc(24);
  body[0] = type;
  body[4] = 0x20; // override
  body.set(addressBytes(target), 8);
  const all = Buffer.concat([body, Buffer.of(2, 1), macBytes(GUEST_MAC)]);
  return ipv6({ mac: GUEST_MAC, address: from }, { mac: to.mac, address: to.address6 }, 58, all);
}

/** To `to`, in the name of `as`. */
export function lies(to: Victim, as: Victim): Buffer[] {
  const frames: Buffer[] = [];
  const ping = Buffer.concat([Buffer.of(8, 0, 0, 0), Buffer.alloc(24)]);
  const udp = Buffer.concat([Buffer.of(0, 53, 0, 53, 0, 16, 0, 0), Buffer.alloc(8)]);
  for (const claim of [as.address, '10.77.0.1', '0.0.0.1', '127.0.0.1'])
    frames.push(
      icmpv4({ mac: GUEST_MAC, address: claim }, to, ping),
      arp(claim, GUEST_MAC, to, 1),
      arp(claim, GUEST_MAC, to, 2),
    );
  for (const claim of [as.address6, 'fd77::1', 'fe80::1', '::1']) {
    const victim = { mac: to.mac, address: to.address6 };
    frames.push(ipv6({ mac: GUEST_MAC, address: claim }, victim, 17, udp));
    for (const type of [134, 135, 136, 137] as const) frames.push(discovery(type, claim, claim, to));
    for (const type of [134, 136, 137] as const) frames.push(discovery(type, claim, SERVICE_ADDRESS6, to));
  }
  // Another's MAC on what would be honest otherwise.
  frames.push(
    icmpv4({ mac: as.mac, address: SERVICE_ADDRESS }, to, ping),
    arp(SERVICE_ADDRESS, as.mac, to, 2),
  );
  for (const [from, dest] of [
    [SERVICE_ADDRESS, to.address],
    [SERVICE_ADDRESS6, to.address6],
    [as.address, to.address],
    [as.address6, to.address6],
  ] as const)
    for (const port of [CHAT, 22])
      for (const flags of FLAGS)
        for (const mac of [GUEST_MAC, as.mac]) {
          const other = mac !== GUEST_MAC || from === as.address || from === as.address6;
          if (port === 22 && !other) continue; // its own connection to somebody
          const ends = {
            from: { mac, address: from, port },
            to: { mac: to.mac, address: dest, port: 40_000 },
          };
          frames.push(buildFrame({ ...ends, ...NOTHING, flags }));
        }
  const tagged = icmpv4({ mac: GUEST_MAC, address: SERVICE_ADDRESS }, to, ping);
  for (const tag of ['81000005', '88a80005'])
    frames.push(Buffer.concat([tagged.subarray(0, 12), Buffer.from(tag, 'hex'), tagged.subarray(12)]));
  // A bridge's hello, LLDP, MPLS, a reverse ARP, a TCP fragment.
  for (const type of ['0026424203', '88cc0207', '88470001', '8035'])
    frames.push(
      Buffer.concat([
        macBytes('01:80:c2:00:00:00'),
        macBytes(GUEST_MAC),
        Buffer.from(type, 'hex'),
        Buffer.alloc(60),
      ]),
    );
  const ends = {
    from: { mac: GUEST_MAC, address: SERVICE_ADDRESS, port: 22 },
    to: { mac: to.mac, address: to.address, port: 40_000 },
  };
  const fragment = buildFrame({ ...ends, ...NOTHING, flags: 'A' });
  fragment.writeUInt16BE(0x2000, 20);
  return [...frames, fragment];
}

/** What a guest that does not own them would say to end or to poison all open connections, at exactly the right places. */
export function stolen(bed: NetnsBed, clientMac: string): Buffer[] {
  return [...bed.path.flows()].flatMap(({ flow }) => {
    const client = clientAddress(flow);
    const six = client.includes(':');
    const ends = {
      from: {
        mac: GUEST_MAC,
        address: six ? SERVICE_ADDRESS6 : SERVICE_ADDRESS,
        port: hostPort(flow.key.lport),
      },
      to: { mac: clientMac, address: client, port: hostPort(flow.key.rport) },
    };
    const at = { ...NOTHING, seq: outSeq(flow, flow.out_sent), ack: inSeq(flow, flow.in_end) };
    return ['R', 'RA', 'FA', 'PA', 'SA'].map(flags => buildFrame({ ...ends, ...at, flags }));
  });
}

/**
 * In the clients' names, by somebody who knows their connections and guesses at the rest: resets and SYNs all over the window, ACKs of
 * what was never sent, other content with a clock of yesterday. Resets for conversations only: their windows are never passed.
 */
export function guesses(bed: NetnsBed, mac: string): Buffer[] {
  const frames: Buffer[] = [];
  for (const { flow } of bed.path.flows()) {
    const address = clientAddress(flow);
    const service = address.includes(':') ? SERVICE_ADDRESS6 : SERVICE_ADDRESS;
    const from = { mac, address, port: hostPort(flow.key.rport) };
    const to = { mac: GUEST_MAC, address: service, port: hostPort(flow.key.lport) };
    const say = (flags: string, ahead: bigint, sent: bigint, old: boolean) => {
      const clock = [nop(), nop(), timestamps((flow.c_tsval - (old ? 50_000 : 0)) >>> 0, flow.s_tsval)];
      const places = { seq: inSeq(flow, flow.in_end + ahead), ack: outSeq(flow, flow.out_sent + sent) };
      const data = Buffer.from(flags === 'PA' ? 'planted' : '');
      frames.push(buildFrame({ from, to, ...places, flags, window: 0, options: Buffer.concat(clock), data }));
    };
    for (let ahead = 1009n; ahead < 60_000n; ahead += 4001n) {
      if (to.port === CHAT) say('R', ahead, 0n, false);
      say('S', ahead, 0n, false);
      for (const beyond of [1_000_000_000n, 1_500_000_000n]) say('A', ahead - 1009n, beyond, false);
      for (const place of [ahead, 0n, -3n]) say('PA', place, 0n, true);
    }
  }
  return frames;
}

/** Why a frame that got onto the bridge should not have; undefined if it is honest. */
export function dishonest(frame: Buffer, ports: number[], clients: Set<string>): string | undefined {
  const hex = (from: number, to: number) => frame.toString('hex', from, to);
  const type = frame.readUInt16BE(12);
  if (!frame.subarray(6, 12).equals(macBytes(GUEST_MAC))) return `source MAC ${hex(6, 12)}`;
  if (type === 0x0806) {
    const own = frame.subarray(22, 28).equals(macBytes(GUEST_MAC));
    return own && frame.subarray(28, 32).equals(addressBytes(SERVICE_ADDRESS))
      ? undefined
      : `ARP ${hex(14, 42)}`;
  }
  if (type !== 0x0800 && type !== 0x86dd) return `type ${type.toString(16)}`;
  const six = isIpv6(frame);
  const source = formatAddress(six ? frame.subarray(22, 38) : frame.subarray(26, 30));
  if (![SERVICE_ADDRESS, SERVICE_ADDRESS6, LINK_LOCAL, ...(six ? ['::'] : [])].includes(source))
    return `source ${source}`;
  if (frame[six ? 20 : 23] === 58 && [134, 137].includes(frame[54]!)) return `discovery ${frame[54]}`;
  if (frame[six ? 20 : 23] !== 6) return undefined;
  const at = six ? 54 : 14 + (frame[14]! & 15) * 4;
  if (at + 4 > frame.length || !ports.includes(frame.readUInt16BE(at))) return undefined;
  const to = `${formatAddress(six ? frame.subarray(38, 54) : frame.subarray(30, 34))} ${frame.readUInt16BE(at + 2)}`;
  return clients.has(to) ? undefined : `TCP to ${to}, who is no client`;
}
