import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { type Check, failure, type Look, ok, warning } from './finding.js';

const REMEDY =
  'sysctl -w net.bridge.bridge-nf-call-iptables=0 (and keep it so in /etc/sysctl.d), or allow the service in FORWARD.';

/** What the host's network does to frames on their way to the data path. */
export function networkChecks(): Check[] {
  return [
    { name: 'bridge netfilter', remedy: REMEDY, look: bridgeNetfilter },
    { name: 'rp_filter', remedy: 'Read /proc/sys/net/ipv4/conf/all/rp_filter by hand.', look: reversePath },
  ];
}

/** With it, frames between a bridge's ports pass the host's firewall, which knows nothing of the service. */
async function bridgeNetfilter(): Promise<Look> {
  if (setting('bridge/bridge-nf-call-iptables') !== '1') return ok('off');
  const policy = await forwardPolicy();
  if (policy === 'DROP')
    return failure('frames on bridges pass iptables, whose FORWARD policy is DROP', REMEDY);
  return warning(`frames on bridges pass iptables (FORWARD policy ${policy ?? 'not known'})`, REMEDY);
}

async function forwardPolicy(): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)('iptables', ['-S', 'FORWARD']);
    return /^-P FORWARD (\w+)/m.exec(stdout)?.[1];
  } catch {
    return undefined;
  }
}

/** The host is in no packet's way: only the replay namespace must not filter, and it has settings of its own. */
async function reversePath(): Promise<Look> {
  return ok(`${setting('ipv4/conf/all/rp_filter') ?? 'not known'} on the host, which is in no service's way`);
}

/** /proc/sys/net is that of the reader's network namespace. */
function setting(path: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/net/${path}`, 'utf8').trim();
  } catch {
    return undefined;
  }
}
