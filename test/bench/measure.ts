import { native } from '../../hypervisor-shim/native/native.js';
import type { BenchHost, Way } from './bench-host.js';
import { LOADS, type LoadName, runLoad, type Target, UNITS } from './loads.js';
import { type Pair, type Ratio, ratioOf } from './statistics.js';

export interface Measuring {
  host: BenchHost;
  target: Target;
  label: string;
  pairs: number;
  seconds: number;
  log: (line: string) => void;
}

/**
 * Every load in pairs. A pair is four slices, plain and protected in turn and then the other way round, so that what changes on the
 * machine meanwhile meets both alike.
 */
export async function throughput(m: Measuring, other: Way = 'protected'): Promise<Record<LoadName, Ratio>> {
  const pairs = Object.fromEntries(LOADS.map(name => [name, [] as Pair[]])) as Record<LoadName, Pair[]>;
  for (let i = 0; i < m.pairs; i++) {
    for (const name of LOADS) {
      const pair = { plain: 0, protected: 0 };
      for (const way of ['plain', other, other, 'plain'] as const) {
        await m.host.take(way, m.target);
        pair[way === 'plain' ? 'plain' : 'protected'] +=
          (await runLoad(name, m.host, m.target, m.seconds)) / 2;
      }
      pairs[name].push(pair);
      const ratio = (pair.protected / pair.plain).toFixed(3);
      const values = `plain ${Math.round(pair.plain)}, ${other} ${Math.round(pair.protected)} ${UNITS[name]}`;
      m.log(`${m.label} ${name} ${i + 1}/${m.pairs}: ${values}, ${ratio}`);
    }
  }
  return Object.fromEntries(LOADS.map(name => [name, ratioOf(pairs[name])])) as Record<LoadName, Ratio>;
}

/** Mean cost of a program's run, ns, and how many runs it is the mean of. */
export interface Cost {
  ns: number;
  packets: number;
}

export type LoadCosts = Record<'from_wire' | 'from_guest', Cost>;

/** The kernel's own statistics of the programs under each load: measured apart, since measuring costs too. */
export async function costs(m: Measuring, way: Way, loads = LOADS): Promise<Record<LoadName, LoadCosts>> {
  const out = {} as Record<LoadName, LoadCosts>;
  for (const name of loads) {
    await m.host.take(way, m.target);
    const programs = { from_wire: m.host.program('wire'), from_guest: m.host.program('guest') };
    out[name] = await withCosts(programs, () => runLoad(name, m.host, m.target, m.seconds));
    const said = Object.entries(out[name]).map(([program, c]) => `${program} ${Math.round(c.ns)} ns`);
    m.log(`${m.label} ${name}, ${way}, per packet: ${said.join(', ')}`);
  }
  return out;
}

/** Costs of programs, by name and descriptor, while `body` runs. */
export async function withCosts<Name extends string>(
  programs: Record<Name, number>,
  body: () => Promise<unknown>,
): Promise<Record<Name, Cost>> {
  const names = Object.keys(programs) as Name[];
  const stats = native.enableStats();
  try {
    const before = names.map(name => native.programStats(programs[name]));
    await body();
    const out = {} as Record<Name, Cost>;
    for (const [i, name] of names.entries()) {
      const after = native.programStats(programs[name]);
      const packets = after.runs - before[i]!.runs;
      out[name] = { ns: packets ? (after.ns - before[i]!.ns) / packets : 0, packets };
    }
    return out;
  } finally {
    native.closeFd(stats);
  }
}
