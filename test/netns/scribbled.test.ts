/** S2 while connections are recovered: a guest that lies on its control page, at full speed, harms only the connections that it names. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import * as wire from '../../guest-agent/wire/control-page.js';
import { clientAddress, formatEndpoint, hostPort } from '../../hypervisor-shim/datapath/addresses.js';
import type { FlowEntry } from '../../hypervisor-shim/datapath/datapath.js';
import { IvshmemChannel } from '../../hypervisor-shim/guest-channel/ivshmem.js';
import type { Guest } from '../../hypervisor-shim/hypervisor.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { CrashWatch } from '../../supervisor/recovery/crash-watch.js';
import type { InPlace } from '../../supervisor/recovery/in-place.js';
import { GuestVm } from '../../supervisor/service/guest.js';
import type { Fault, Protection } from '../../supervisor/service/protection.js';
import type { Named } from '../fixtures/lib/scribbler.js';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { type Client, servePeer, startPeerAt } from './lib/clients.js';
import { CHAT, SINK } from './lib/peer.js';

const TAG = 'scribbled';
const PORTS = [SINK, CHAT];
const SCRIPT = fileURLToPath(new URL('../fixtures/lib/scribbler.js', import.meta.url));
const FILES = [0, 1].map(n => `/dev/shm/holdfast-test-${process.pid}-s${n}`) as [string, string];
const BYTES = 6 << 20;
/** Slow enough to be there to the end. */
const RATE = 400_000;
/** How often a connection may be named within a minute and still be kept, and how often for its end; while it is held it does not count. */
const [TWICE, OFTEN] = [2, 10_000];

test.after.always(() => {
  for (const file of FILES) rmSync(file, { force: true });
});

const nameOf = ({ flow }: FlowEntry) => formatEndpoint(clientAddress(flow), hostPort(flow.key.rport));

test.serial(
  'a guest that lies on its page, while its lies are recovered from, and while it takes over',
  async t => {
    const bed = await NetnsBed.create(TAG, { ports: PORTS, logMiB: 64 });
    const scribblers: ChildProcess[] = [];
    const start = (slot: number) => servePeer(bed, slot, PORTS);
    const scribble = async (slot: 0 | 1, ...words: string[]) => {
      const child = spawn(process.execPath, [SCRIPT, FILES[slot], ...words], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      scribblers.push(child);
      await once(child.stdout!, 'data');
      return child;
    };
    const end = async (child: ChildProcess) => {
      const gone = once(child, 'close');
      child.kill('SIGKILL');
      await gone;
    };
    try {
      for (const slot of [0, 1]) await start(slot);
      const guests = FILES.map((file, slot) => {
        const channel = new IvshmemChannel(native.mapFile(file, wire.PAGE_BYTES));
        channel.reset();
        const guest = new GuestVm(
          `web-${slot}`,
          slot,
          bed.taps[slot]!,
          {} as unknown as Guest,
          channel,
          '',
          '',
        );
        guest.state = 'active';
        return guest;
      });
      const said: { type: string; data: Record<string, unknown> }[] = [];
      let asked = 0;
      const p = {
        path: bed.path,
        config: { name: 'web', address: '10.77.0.10/24', address6: 'fd77::10/64' },
        primary: guests[0],
        fault: undefined as Fault | undefined,
        guestIn: (slot: number) => guests[slot],
        say: (type: string, _: string, data: Record<string, unknown>) => void said.push({ type, data }),
        primaryFailed(cause: Fault['cause'], detail: string) {
          this.path.fence(this.primary!.slot);
          this.fault = { cause, detail } as Fault;
        },
        guestFailed(_guest: GuestVm, cause: Fault['cause'], detail: string) {
          this.primaryFailed(cause, detail);
        },
      };
      const inPlace = { request: () => void asked++, serviceDied: () => t.fail('no list said so') };
      const watch = new CrashWatch(p as unknown as Protection, inPlace as unknown as InPlace);

      const families = [4, 6] as const;
      const spared: Client[] = families.map(family => startPeerAt(bed, { family }, 'sink', BYTES, RATE));
      spared.push(...families.map(family => startPeerAt(bed, { family }, 'chat', 0, 3000, 60)));
      const flows = (count: number) =>
        waitFor(`${count} connections`, 20_000, () => {
          const all = [...bed.path.flows()];
          return all.length === count ? all : undefined;
        });
      const others = new Set((await flows(4)).map(nameOf));
      const [twice, often] = families.map(family => startPeerAt(bed, { family }, 'sink', BYTES, RATE)) as [
        Client,
        Client,
      ];
      const chat = startPeerAt(bed, { family: 4 }, 'chat', 0, 3000, 60);
      const named = (await flows(7)).filter(entry => !others.has(nameOf(entry)));
      const isDoomed = ({ flow }: FlowEntry) => flow.key.family === 6;
      const list = named.map((entry): Named => {
        const { family, raddr, rport, lport } = entry.flow.key;
        const remote = [...new Uint8Array(raddr.buffer, raddr.byteOffset, 16)];
        return { family: family as 4 | 6, remote, rport, lport, times: isDoomed(entry) ? OFTEN : TWICE };
      });

      watch.start();
      try {
        const liar = await scribble(0, 'lists', JSON.stringify(list));
        const lost = () => said.filter(({ type }) => type === 'connection.lost');
        // What the supervisor does: a replay in place for whatever is held, again and again.
        const codes: string[] = [];
        const replay = async () => {
          for (const { outcome, code } of await bed.replayLate()) codes.push(`${outcome} ${code}`);
        };
        for (let done = 0; lost().length === 0; done = asked) {
          await waitFor(
            'a connection to be held',
            30_000,
            () => asked > done || lost().length > 0 || undefined,
          );
          await replay();
        }
        await end(liar);
        await replay();
        t.deepEqual(
          lost().map(({ data }) => [data.client, data.code]),
          [[nameOf(named.find(isDoomed)!), 'crash-loop']],
        );
        t.true(codes.length >= 2, `${codes}`);
        t.deepEqual([...new Set(codes)], ['kept spliced']);
        t.true(
          said.filter(({ type }) => type === 'guest.application').length <= 20,
          'it is told of some deaths, not of all',
        );
        t.is(p.fault, undefined, 'it has served on');
        const replayed = [...bed.path.flows()].filter(({ flow }) => flow.failovers > 0).map(nameOf);
        t.deepEqual(
          replayed.filter(name => others.has(name)),
          [],
          'those that it did not name',
        );
        const kept = named.filter(entry => !isDoomed(entry)).map(nameOf);
        t.true(
          kept.every(name => replayed.includes(name)),
          `${kept} were replayed, being named`,
        );
        t.false((await often.result).ok, 'its client has learnt of it');

        // The next one begins to lie as it takes over, and loses what it was given.
        await bed.prepare();
        const garbage = await scribble(1, 'garbage');
        const takesOver = bed.failover();
        p.primary = guests[1];
        const { fenced } = await takesOver;
        await waitFor('the guest to be given up', 30_000, () => p.fault !== undefined || undefined);
        t.like(p.fault, { cause: 'application-exit' });
        t.log(`the takeover ${fenced ? 'was broken off' : 'had ended'}`);
        await bed.reprotect(start);
        const { verdicts } = await bed.failover();
        await end(garbage);
        t.deepEqual(
          verdicts.filter(({ outcome }) => outcome === 'lost'),
          [],
        );
        t.is(verdicts.length, 6);
      } finally {
        watch.stop();
      }
      for (const client of [twice, ...spared.slice(0, 2)])
        t.like(await client.result, { ok: true, bytes: BYTES });
      for (const client of [chat, ...spared.slice(2)]) {
        client.child.kill('SIGUSR2');
        t.like(await client.result, { ok: true });
      }
    } finally {
      for (const child of scribblers) child.kill('SIGKILL');
      await bed.dispose();
    }
    t.deepEqual(await leftovers(TAG), []);
  },
);
