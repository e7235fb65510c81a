import { shell } from '../lib/guest-shell.js';
import type { Image } from '../lib/image.js';
import { waitFor } from '../lib/run.js';
import type { BenchHost } from './bench-host.js';
import { vmGuest } from './guest-vm.js';
import { type LoadName, runLoad, UNITS } from './loads.js';
import { type Pair, type Ratio, ratioOf } from './statistics.js';

/** What each request, and what each connection costs. */
const GUEST_LOADS = ['requests', 'connections'] as const satisfies LoadName[];
export type GuestLoad = (typeof GUEST_LOADS)[number];
const AGENT = '/opt/holdfast/guest-agent/agent.js';
const PINS = '/sys/fs/bpf/holdfast';
const NIC = '$(basename $(dirname $(ls -d /sys/class/net/*/device | head -1)))';

/** In the place of the agent a process that does nothing, and no heart; no program of the exit watch is attached anywhere. Process 1 starts what was killed. */
const OFF = `mv ${AGENT} ${AGENT}.real && echo 'setInterval(() => {}, 1e9);' >${AGENT}
kill -KILL $(busybox pidof node holdfast-heart) $(busybox pidof heart-beating); busybox usleep 500000
rm -rf ${PINS}; tc qdisc del dev ${NIC} clsact; echo off`;
const ON = `mv ${AGENT}.real ${AGENT}; kill -KILL $(busybox pidof node); echo on`;
/** What is there: pins of links, and filters. */
const THERE = `ls ${PINS} 2>/dev/null | grep -c link; tc filter show dev ${NIC} egress 2>/dev/null | grep -c egress_guard`;
/** Whoever starts anew is busy for a moment. */
const SETTLE_MS = 1500;

async function turn(host: BenchHost, on: boolean): Promise<void> {
  await shell(host.lab, on ? ON : OFF);
  const wanted = on ? /^3\s+[1-9]/ : /^0\s+0/;
  await waitFor(`the agent's programs to be ${on ? 'there' : 'gone'}`, 30_000, async () => {
    return wanted.test(await shell(host.lab, THERE)) || undefined;
  });
  await new Promise(resolve => setTimeout(resolve, SETTLE_MS));
}

/** A guest without and with the agent and its programs, in turn, on the plain bridge: `plain` is without. */
export async function guestCost(
  image: Image,
  pairs: number,
  seconds: number,
  log: (line: string) => void,
): Promise<Record<GuestLoad, Ratio>> {
  const { host, target, dispose } = await vmGuest(image);
  const found = Object.fromEntries(GUEST_LOADS.map(name => [name, [] as Pair[]])) as Record<
    GuestLoad,
    Pair[]
  >;
  try {
    let on = true;
    for (let i = 0; i < pairs; i++) {
      const pair = Object.fromEntries(GUEST_LOADS.map(name => [name, { plain: 0, protected: 0 }])) as Record<
        GuestLoad,
        Pair
      >;
      for (const wanted of [false, true, true, false]) {
        if (on !== wanted) await turn(host, wanted);
        on = wanted;
        for (const name of GUEST_LOADS)
          pair[name][on ? 'protected' : 'plain'] += (await runLoad(name, host, target, seconds)) / 2;
      }
      for (const name of GUEST_LOADS) {
        found[name].push(pair[name]);
        const { plain, protected: watched } = pair[name];
        log(
          `guest ${name} ${i + 1}/${pairs}: without ${Math.round(plain)}, with the agent ${Math.round(watched)} ${UNITS[name]}, ${(watched / plain).toFixed(3)}`,
        );
      }
    }
  } finally {
    await dispose();
  }
  return Object.fromEntries(GUEST_LOADS.map(name => [name, ratioOf(found[name])])) as Record<
    GuestLoad,
    Ratio
  >;
}
