/**
 * Path MTU discovery across failovers: a client behind a router whose further link is narrower than both ends believe, so that
 * each guest must learn it from the router's real ICMP. Without the translation of what that quotes, the flow stands still.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { knownContent } from '../../images/content.js';
import { BRIDGE } from '../lib/lab.js';
import { leftovers } from '../lib/leftovers.js';
import { run, waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { download } from './lib/clients.js';

const FILE_BYTES = 48 << 20;
const NARROW = 1300;
const body = Buffer.concat([...knownContent('pmtu', 'file', FILE_BYTES)]);
const sha256 = createHash('sha256').update(body).digest('hex');
const FAR = { 4: '10.88.0.2', 6: 'fd88::2' };

/** far --- 1500 | 1300 --- router --- br0. Returns the far namespace. */
async function behindRouter({ lab }: NetnsBed): Promise<string> {
  const [router, far] = [`hf-${lab.tag}-rt`, `hf-${lab.tag}-far`];
  for (const name of [router, far]) await run(['ip', 'netns', 'add', name]);
  const ip = (namespace: string, words: string) => run(['ip', '-n', namespace, ...words.split(' ')]);
  await ip(lab.host, `link add rt type veth peer name near netns ${router}`);
  await ip(lab.host, `link set rt master ${BRIDGE} up`);
  await ip(router, `link add far type veth peer name eth0 netns ${far}`);
  await ip(router, `link set far mtu ${NARROW}`);
  for (const [namespace, device, addresses] of [
    [router, 'near', ['10.77.0.200/24', 'fd77::200/64']],
    [router, 'far', ['10.88.0.1/24', 'fd88::1/64']],
    [far, 'eth0', [`${FAR[4]}/24`, `${FAR[6]}/64`]],
  ] as const) {
    for (const address of addresses) await ip(namespace, `addr add ${address} dev ${device} nodad`);
    await ip(namespace, `link set ${device} up`);
  }
  await ip(far, 'route add default via 10.88.0.1');
  await ip(far, '-6 route add default via fd88::1');
  const settings = ['ipv4.ip_forward=1', 'ipv6.conf.all.forwarding=1', 'ipv4.icmp_ratelimit=0'];
  await lab.exec(router, ['sysctl', '-qw', ...settings.map(setting => `net.${setting}`)]);
  // or all of the file is on its way before the fault
  await lab.exec(far, ['sysctl', '-qw', 'net.ipv4.tcp_rmem=4096 65536 262144']);
  return far;
}

async function startGuest(bed: NetnsBed, slot: number): Promise<void> {
  const guest = bed.guest(slot);
  await run(['ip', '-n', guest, 'route', 'add', 'default', 'via', '10.77.0.200']);
  await run(['ip', '-n', guest, '-6', 'route', 'add', 'default', 'via', 'fd77::200']);
  await bed.nginx(slot, `${bed.lab.dir}/www`);
}

/** What a guest has learnt of the path to the client. */
async function pathMtu(bed: NetnsBed, slot: number, family: 4 | 6): Promise<number | undefined> {
  const { stdout } = await run(['ip', '-n', bed.guest(slot), 'route', 'get', FAR[family]]);
  return Number(/\bmtu (\d+)/.exec(stdout)?.[1]) || undefined;
}

async function survives(t: ExecutionContext, bed: NetnsBed): Promise<void> {
  mkdirSync(`${bed.lab.dir}/www`);
  writeFileSync(`${bed.lab.dir}/www/file`, body);
  const namespace = await behindRouter(bed);
  for (const slot of [0, 1]) await startGuest(bed, slot);
  const families = [4, 6] as const;
  const all = families.map(family => download(bed, '/file', '4M', { family, namespace }));
  for (let round = 1; round <= 2; round++) {
    await waitFor('the downloads', 60_000, () => {
      const sent = [...bed.path.flows()].map(({ flow }) => Number(flow.out_sent));
      return (sent.length === 2 && Math.min(...sent) > round * (8 << 20)) || undefined;
    });
    for (const family of families) t.is(await pathMtu(bed, bed.active, family), NARROW);
    t.true(
      [...bed.path.flows()].every(({ flow }) => flow.out_sent < (FILE_BYTES * 3) / 4),
      'the fault comes in the middle',
    );
    const { verdicts } = await bed.failover();
    t.deepEqual(
      verdicts.map(v => `${v.outcome}: ${v.reason}`),
      ['kept: spliced', 'kept: spliced'],
    );
    if (round === 1) await bed.reprotect(slot => startGuest(bed, slot));
  }
  for (const d of all) t.like(await d.result, { code: 0, bytes: FILE_BYTES, sha256 });
  for (const family of families) t.is(await pathMtu(bed, bed.active, family), NARROW, `IPv${family}`);
}

test.serial('a narrower path is discovered by each guest of a spliced connection', async t => {
  const tag = 'pmtu';
  const bed = await NetnsBed.create(tag, { ports: [80], logMiB: 64 });
  try {
    await survives(t, bed);
  } finally {
    await bed.dispose();
  }
  t.deepEqual(await leftovers(tag), []);
});
