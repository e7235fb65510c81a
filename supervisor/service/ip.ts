import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { HoldfastError } from '../../hypervisor-shim/errors.js';

const run = promisify(execFile);

export interface Link {
  ifname: string;
  ifindex: number;
  mtu: number;
  linkinfo?: { info_kind?: string };
}

/** As `ip -j` shows it; what was not asked for is missing. */
export interface Interface {
  ifname: string;
  operstate: string;
  flags: string[];
  address: string;
  ifindex: number;
  addr_info: { local: string; prefixlen: number; family: string }[];
}

/** Runs ip(8) once for all lines; stops at the first that fails. Throws `HF_NETWORK`. */
export async function ipBatch(lines: string[]): Promise<void> {
  const running = run('ip', ['-batch', '-']);
  running.child.stdin?.end(`${lines.join('\n')}\n`);
  try {
    await running;
  } catch (cause) {
    const said = (cause as { stderr?: string }).stderr?.trim() || String(cause);
    const failed = /Command failed -:(\d+)/.exec(said)?.[1];
    const line = failed === undefined ? lines.join('; ') : lines[Number(failed) - 1];
    throw new HoldfastError(
      'HF_NETWORK',
      `ip ${line}: ${said.split('\n')[0]}`,
      'Run the supervisor as root, with iproute2 installed; `holdfast down NAME` removes what was left behind.',
      { cause },
    );
  }
}

/** All interfaces of this network namespace. Not from /sys, which shows the namespace in which it was mounted. */
export async function links(): Promise<Link[]> {
  const { stdout } = await run('ip', ['-j', '-d', 'link', 'show'], { maxBuffer: 64 << 20 });
  return JSON.parse(stdout) as Link[];
}

/** What `ip` shows of the interfaces of this network namespace, `words` being its arguments. */
export async function interfaces(words: string[]): Promise<Interface[]> {
  const { stdout } = await run('ip', ['-j', ...words], { maxBuffer: 64 << 20 });
  // iproute2 writes `{}` for what it left out.
  return (JSON.parse(stdout || '[]') as Interface[]).filter(({ ifname }) => ifname !== undefined);
}

/** Keeps the host from speaking IPv6 on an interface. /proc/sys/net is that of the reader's namespace. */
export function silenceIpv6(device: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, '1');
  } catch {
    // a kernel without IPv6
  }
}
