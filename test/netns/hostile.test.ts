/** S2, S6, P3 with a real guest that lies and a neighbour that guesses: nobody hears them as anybody else, and clients notice nothing. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { clientAddress, hostPort } from '../../hypervisor-shim/datapath/addresses.js';
import { STATE } from '../../hypervisor-shim/datapath/layout.generated.js';
import { leftovers } from '../lib/leftovers.js';
import { forEachFrame } from '../lib/pcap.js';
import { sleep, waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { servePeer, startPeerAt } from './lib/clients.js';
import { dishonest, guesses, lies, stolen, type Victim } from './lib/forgeries.js';
import { CHAT, SINK } from './lib/peer.js';
import { pack } from './lib/raw.js';

const TAG = 'hostile';
const PORTS = [SINK, CHAT];
const RAW = fileURLToPath(new URL('./lib/raw.js', import.meta.url));
const GARBAGE = 30_000;
const BYTES = 18 << 20;
test.serial(
  'a guest that forges MACs, addresses, ARP, discovery and other flows, floods with garbage, and a neighbour that guesses, are heard by nobody',
  async t => {
    const bed = await NetnsBed.create(TAG, { ports: PORTS, logMiB: 64, clients: 2 });
    try {
      for (const slot of [0, 1]) await servePeer(bed, slot, PORTS);
      const victims = await Promise.all(
        bed.lab.clients.map(async ({ name, dev, address, address6 }): Promise<Victim> => {
          const { stdout } = await bed.lab.exec(name, ['ip', '-j', 'link', 'show', dev]);
          return { mac: JSON.parse(stdout)[0].address, address, address6 };
        }),
      );
      const [client, other] = victims as [Victim, Victim];
      // What the two know of each other, and must go on to know.
      const neighbours = async () => {
        for (const address of [other.address, other.address6]) {
          const url = `http://${address.includes(':') ? `[${address}]` : address}:9/`; // nobody listens: only its address is asked
          await bed.lab.exec(bed.client.name, ['curl', '-sS', '--globoff', '-m5', url], {
            allowFailure: true,
          });
        }
        const { stdout } = await bed.lab.exec(bed.client.name, [
          'ip',
          '-j',
          'neigh',
          'show',
          'dev',
          bed.client.dev,
        ]);
        const all: { dst: string; lladdr?: string }[] = JSON.parse(stdout);
        return [other.address, other.address6].map(address => all.find(n => n.dst === address)?.lladdr);
      };
      t.deepEqual(await neighbours(), [other.mac, other.mac]);

      const file = `${bed.lab.dir}/bridge.pcap`;
      const dump = bed.lab.spawn(bed.lab.host, [
        ...['tcpdump', '-i', 'svcp', '-Q', 'in', '-n', '-s', '160', '-B', '131072', '-Z', 'root', '-w', file],
      ]);
      let errors = '';
      dump.stderr!.on('data', d => {
        errors += d;
      });
      await waitFor('tcpdump to listen', 10_000, () => /listening on/.test(errors) || undefined);

      const ups = [4, 6].map(family => startPeerAt(bed, { family: family as 4 | 6 }, 'sink', BYTES, 3 << 20));
      const chats = [4, 6].map(family => startPeerAt(bed, { family: family as 4 | 6 }, 'chat', 0, 3000, 60));
      await Promise.all(chats.map(chat => chat.open));
      await waitFor('four connections', 20_000, () => [...bed.path.flows()].length === 4 || undefined);
      const tuples = new Set(
        [...bed.path.flows()].map(({ flow }) => `${clientAddress(flow)} ${hostPort(flow.key.rport)}`),
      );

      const say = async (who: number | string, frames: Buffer[]): Promise<number> => {
        const namespace = typeof who === 'string' ? who : bed.guest(who);
        const child = bed.lab.spawn(namespace, [process.execPath, RAW, 'send', 'eth0'], {
          stdio: ['pipe', 'pipe', 'inherit'],
        });
        child.stdin!.end(pack(frames));
        const [code] = await once(child, 'close');
        t.is(code, 0);
        return frames.length;
      };
      const before = bed.path.stats();
      const told = await say(0, [...lies(client, other), ...lies(other, client)]);
      t.true(told > 200);
      // The backup is no less hostile, and knows what the primary's connections are about.
      for (let i = 0; i < 3; i++) await say(1, [...stolen(bed, client.mac), ...lies(client, other)]);
      const after = bed.path.stats();
      t.true(after.DROP_GUEST_LIE - before.DROP_GUEST_LIE > 150, 'forged sources');
      t.true(after.DROP_ZOMBIE - before.DROP_ZOMBIE >= 3 * 4 * 4, 'the fenced guest');
      t.true(after.DROP_PARSE - before.DROP_PARSE >= 10, 'what is no IP or ARP');
      const floods = [0, 1].map(slot =>
        bed.lab.spawn(
          bed.guest(slot),
          [process.execPath, RAW, 'garbage', 'eth0', `${GARBAGE}`, `${slot + 1}`],
          {
            stdio: ['ignore', 'ignore', 'inherit'],
          },
        ),
      );
      const codes = await Promise.all(floods.map(async flood => (await once(flood, 'close'))[0]));
      t.deepEqual(codes, [0, 0]);
      const talking = [...bed.path.flows()].filter(({ flow }) => hostPort(flow.key.lport) === CHAT);
      t.deepEqual(
        talking.map(({ flow }) => flow.state),
        [STATE.TRACKED, STATE.TRACKED],
      );
      // Somebody beside the client, too, before the takeover, in it and after it.
      const attacker = bed.lab.clients[1]!.name;
      const dropped = bed.path.stats();
      t.true((await say(attacker, guesses(bed, other.mac))) > 300);
      const now = bed.path.stats();
      t.true(now.DROP_ACK - dropped.DROP_ACK > 100 && now.DROP_OLD - dropped.DROP_OLD > 50);
      const inside = say(attacker, guesses(bed, other.mac));
      const { verdicts } = await bed.failover();
      await inside;
      await say(attacker, guesses(bed, other.mac));
      t.deepEqual(
        verdicts.filter(v => v.outcome === 'lost'),
        [],
      );
      t.is(verdicts.filter(v => v.code === 'spliced' && v.port === CHAT).length, 2);
      // The one that was fenced goes on to lie, about connections that were its own.
      await say(0, [...stolen(bed, client.mac), ...lies(client, other)]);
      for (const up of ups) t.like(await up.result, { ok: true, bytes: BYTES });
      for (const chat of chats) chat.child.kill('SIGUSR2');
      for (const chat of chats) t.like(await chat.result, { ok: true });
      t.deepEqual(await neighbours(), [other.mac, other.mac]);

      await sleep(1200); // the kernel hands packets over in blocks
      const gone = once(dump, 'close');
      dump.kill('SIGINT');
      await gone;
      t.regex(errors, /(^|\D)0 packets dropped by kernel/);
      const seen = readFileSync(file);
      const wrong = new Set<string>();
      let frames = 0;
      forEachFrame(seen, ({ offset, captured }) => {
        frames++;
        const why = dishonest(seen.subarray(offset, offset + captured), PORTS, tuples);
        if (why) wrong.add(why);
      });
      t.true(frames > 300, `${frames} frames were looked at`);
      t.deepEqual([...wrong], []);
    } finally {
      await bed.dispose();
    }
    t.deepEqual(await leftovers(TAG), []);
  },
);
