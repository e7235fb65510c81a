/** What the code assumes of the kernel, proved on this host by the programs that `holdfast doctor` runs on a user's. */
import { readdirSync } from 'node:fs';
import test from 'ava';
import * as proofs from '../../hypervisor-shim/platform/proofs.js';
import { repositoryRoot, run } from '../lib/run.js';

const CLAIMS = {
  proveCapabilities: /^root with .*CAP_BPF/,
  proveKernel: /^\d+\.\d+.* with BTF$/,
  proveBpffs: /\/sys\/fs\/bpf$/,
  proveDataPath: /^loaded, pinned and attached/,
  proveReplay: /IP_TRANSPARENT/,
  proveTun: /tap/,
} as const;
type Name = keyof typeof CLAIMS;

const PROOFS: Record<Name, () => Promise<string>> = { ...proofs };

test('every proof is tried here', t => {
  t.deepEqual(Object.keys(PROOFS).sort(), Object.keys(CLAIMS).sort());
});

for (const [name, claim] of Object.entries(CLAIMS) as [Name, RegExp][]) {
  test.serial(`${name} holds on this host, and leaves nothing behind`, async t => {
    t.regex(await PROOFS[name](), claim);
    t.deepEqual(await traces(), []);
  });
}

/** Interfaces, namespaces and pins with the scratch name of this process. */
async function traces(): Promise<string[]> {
  const mark = new RegExp(`hfd${process.pid}|doctor_${process.pid}`);
  const { stdout } = await run(['sh', '-c', 'ip -o link; ip netns list']);
  const pins = readdirSync('/sys/fs/bpf', { recursive: true }) as string[];
  return [...stdout.split('\n'), ...pins].filter(line => mark.test(line));
}

/** What a proof rejects with in a process without these capabilities. */
async function without(capabilities: string, name: Name): Promise<string> {
  const script = `
    const proofs = await import(${JSON.stringify(`${repositoryRoot()}/build/hypervisor-shim/platform/proofs.js`)});
    try { await proofs.${name}(); console.log('it holds'); } catch (error) { console.log(error.stderr || error.message); }`;
  const drop = `-${capabilities.replaceAll(',', ',-')}`;
  const argv = ['setpriv', '--bounding-set', drop, '--inh-caps', drop];
  const { stdout } = await run([...argv, process.execPath, '--input-type=module', '-e', script]);
  return stdout.trim();
}

test.serial('a proof fails where its claim does not hold, and leaves nothing behind either', async t => {
  const namespaces = async () => new Set((await run(['ip', 'netns', 'list'])).stdout.match(/^hfd\d+/gm));
  const before = await namespaces();
  t.is(await without('net_admin,bpf', 'proveCapabilities'), 'root lacks CAP_NET_ADMIN, CAP_BPF');
  t.regex(await without('bpf,sys_admin,perfmon', 'proveDataPath'), /not permitted|did not take|EPERM/i);
  t.regex(await without('net_admin', 'proveReplay'), /not permitted/i);
  t.regex(await without('net_admin', 'proveTun'), /not permitted/i);
  t.deepEqual(
    [...(await namespaces())].filter(name => !before.has(name)),
    [],
  );
});
