import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { ServiceAddresses } from '../datapath/addresses.js';
import { HoldfastError } from '../errors.js';

const run = promisify(execFile);

/** The network namespace in which replay sockets play the clients, linked to the data path by a veth pair. */
export interface ReplayNamespace {
  name: string;
  path: string;
  /** Host's end, where `from_replay` is attached. */
  ifindex: number;
  /** MAC of the inner end: what frames for the replay sockets are addressed to. */
  mac: Uint8Array;
}

const INNER = 'rpn';
/** A veth's most: what the guest sends to its client, of whatever size, must reach the replay socket too. */
const MTU = 65535;

async function ip(batch: string[], netns?: string, family: '-4' | '-6' = '-4'): Promise<void> {
  const child = run('ip', [family, ...(netns ? ['-n', netns] : []), '-batch', '-']);
  child.child.stdin!.end(`${batch.join('\n')}\n`);
  try {
    await child;
  } catch (e) {
    throw new HoldfastError(
      'HF_NETNS',
      `replay namespace: ${(e as { stderr?: string }).stderr?.trim() ?? e}`,
      'Check that iproute2 is installed and that network namespaces are permitted (`ip netns add x; ip netns del x`).',
      { cause: e },
    );
  }
}

export const macBytes = (text: string): Uint8Array =>
  Uint8Array.from(text.split(':'), h => Number.parseInt(h, 16));

/**
 * Makes a fresh namespace. Every address is local in it (table 100), so that a socket can be bound to any client's
 * address; the service's own address is the guest's, resolved statically.
 *
 * @param hostDevice name of the veth's host end, at most 15 characters
 */
export async function createReplayNamespace(
  name: string,
  hostDevice: string,
  service: ServiceAddresses,
  mac: string,
): Promise<ReplayNamespace> {
  await removeReplayNamespace(name, hostDevice);
  try {
    await ip([
      `netns add ${name}`,
      `link add ${hostDevice} mtu ${MTU} type veth peer name ${INNER} mtu ${MTU} netns ${name}`,
      `link set ${hostDevice} up`,
    ]);
    await ip(
      [
        'link set lo up',
        // No address of its own, no router asked: nothing but replay sockets speaks here.
        ...(service.address6 ? [`link set ${INNER} addrgenmode none`] : []),
        `link set ${INNER} up`,
        // Any rule beside the defaults breaks plain AnyIP: hence IP_TRANSPARENT sockets and a table of their own.
        `rule add iif ${INNER} lookup 100`,
        'route add local default dev lo table 100',
        `route add ${service.address}/32 dev ${INNER}`,
        `neigh add ${service.address} lladdr ${mac} dev ${INNER} nud permanent`,
      ],
      name,
    );
    if (service.address6) await ip(ipv6(service.address6, mac), name, '-6');
    const settings = [
      'net.ipv4.conf.all.rp_filter=0',
      `net.ipv4.conf.${INNER}.rp_filter=0`,
      'net.ipv4.conf.default.rp_filter=0',
      'net.ipv4.tcp_timestamps=1',
      'net.ipv4.tcp_sack=1',
      'net.ipv4.tcp_window_scaling=1',
      'net.ipv4.tcp_ecn=0',
      'net.ipv4.tcp_fastopen=0',
      'net.ipv4.tcp_slow_start_after_idle=0',
      'net.ipv4.tcp_no_metrics_save=1',
      'net.ipv4.tcp_wmem=4096 4194304 16777216',
      'net.ipv4.tcp_rmem=4096 6291456 16777216',
    ];
    await run('nsenter', [`--net=/run/netns/${name}`, 'sysctl', '-qw', ...settings]);
    const link = JSON.parse((await run('ip', ['-n', name, '-j', 'link', 'show', INNER])).stdout);
    // Not from /sys: that shows the namespace in which it was mounted.
    const outer = JSON.parse((await run('ip', ['-j', 'link', 'show', hostDevice])).stdout);
    return { name, path: `/run/netns/${name}`, ifindex: outer[0].ifindex, mac: macBytes(link[0].address) };
  } catch (e) {
    await removeReplayNamespace(name, hostDevice);
    throw e;
  }
}

const ipv6 = (address: string, mac: string): string[] => [
  `rule add iif ${INNER} lookup 100`,
  'route add local default dev lo table 100',
  `route add ${address}/128 dev ${INNER}`,
  `neigh add ${address} lladdr ${mac} dev ${INNER} nud permanent`,
];

/** Removes the namespace and its veth; sockets still in it die silently behind `from_replay`. */
export async function removeReplayNamespace(name: string, hostDevice: string): Promise<void> {
  await run('ip', ['link', 'del', hostDevice]).catch(() => {});
  await run('ip', ['netns', 'del', name]).catch(() => {});
}
