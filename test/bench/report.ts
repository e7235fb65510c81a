import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { type Faults, faultGoals, faultsJson, faultsTable } from './faults-report.js';
import { type Goal, goals } from './goals.js';
import { LOADS, type LoadName, UNITS } from './loads.js';
import type { LoadCosts } from './measure.js';
import type { Gap, Recovery } from './recovery-netns.js';
import type { Ratio } from './statistics.js';

type OrGap<T> = T | null;

/** Mean ns per packet by program and load; the kernel's clock reads, in `redirectOnly` too, are part of each figure. */
export interface NsPerPacket {
  /** Packets without payload: `from_wire` under a download. */
  ack: number;
  /** A program that does nothing but redirect, measured in the same way. */
  redirectOnly: number;
  from_wire: Record<LoadName, number>;
  from_guest: Record<LoadName, number>;
  packetsPerSecond: Record<'from_wire' | 'from_guest', Record<LoadName, number>>;
}

export interface Results {
  throughput: { vm: OrGap<Record<LoadName, Ratio>>; netns: OrGap<Record<LoadName, Ratio>> };
  /** The netns path with programs that only redirect: the price of the way. */
  redirectOnly: OrGap<Record<LoadName, Ratio>>;
  nsPerPacket: { vm: OrGap<NsPerPacket>; netns: OrGap<NsPerPacket>; from_replay: OrGap<number> };
  recovery: { vm: OrGap<Record<string, Recovery>>; netns: OrGap<Record<string, Recovery>> };
  gap: { vm: OrGap<Gap>; netns: OrGap<Gap> };
  faults: Faults;
  reasons: Record<string, string>;
  pairs: number;
  accel: string | null;
}

export function nsPerPacket(
  costs: Record<LoadName, LoadCosts>,
  redirectOnly: number,
  seconds: number,
): NsPerPacket {
  const of = (program: keyof LoadCosts) =>
    Object.fromEntries(LOADS.map(name => [name, rounded(costs[name][program].ns)])) as Record<
      LoadName,
      number
    >;
  const rate = (program: keyof LoadCosts) =>
    Object.fromEntries(
      LOADS.map(name => [name, Math.round(costs[name][program].packets / seconds)]),
    ) as Record<LoadName, number>;
  return {
    ack: rounded(costs.bulkDown.from_wire.ns),
    redirectOnly: rounded(redirectOnly),
    from_wire: of('from_wire'),
    from_guest: of('from_guest'),
    packetsPerSecond: { from_wire: rate('from_wire'), from_guest: rate('from_guest') },
  };
}

/** The figures as one object: the last line of standard output. */
export function asJson(r: Results): string {
  const loads = LOADS.map(name => [
    name,
    { vm: r.throughput.vm?.[name] ?? null, netns: r.throughput.netns?.[name] ?? null },
  ]);
  const { netns, vm, from_replay } = r.nsPerPacket;
  return JSON.stringify(
    {
      ...Object.fromEntries(loads),
      nsPerPacket: { ...netns, from_replay, vm },
      recovery: r.recovery,
      gap: r.gap,
      redirectOnly: r.redirectOnly,
      faults: faultsJson(r.faults),
      goals: allGoals(r),
      reasons: r.reasons,
      pairs: r.pairs,
      machine: { cpu: cpu(), kernel: release(), accel: r.accel },
    },
    (_, value) => (typeof value === 'number' ? rounded(value, 4) : value),
  );
}

const allGoals = (r: Results): Goal[] => [...goals(r), ...faultGoals(r.faults)];

const rounded = (value: number, digits = 1): number => Number(value.toFixed(digits));

function cpu(): string {
  const text = readFileSync('/proc/cpuinfo', 'utf8');
  const count = text.match(/^processor/gm)?.length ?? 1;
  return `${count} x ${/^model name\s*: (.*)$/m.exec(text)?.[1] ?? 'unknown'}`;
}

/** The figures for a reader. */
export function asTable(r: Results): string {
  const lines = [`protected / plain, ${r.pairs} pairs: median ratio [95% confidence interval]`, ''];
  for (const name of LOADS)
    for (const where of ['netns', 'vm'] as const) {
      const x = r.throughput[where]?.[name];
      if (!x) continue;
      const absolute = `${Math.round(x.plain)} -> ${Math.round(x.protected)} ${UNITS[name]}`;
      lines.push(
        `  ${name.padEnd(12)} ${where.padEnd(6)} ${x.ratio.toFixed(3)}  [${x.low.toFixed(3)}, ${x.high.toFixed(3)}]   ${absolute}`,
      );
    }
  lines.push('', 'ns per packet in the programs', '');
  for (const where of ['netns', 'vm'] as const) {
    const ns = r.nsPerPacket[where];
    if (!ns) continue;
    lines.push(`  ${where}: without payload ${ns.ack}, a bare redirect ${ns.redirectOnly}`);
    for (const program of ['from_wire', 'from_guest'] as const)
      lines.push(`    ${program.padEnd(11)} ${LOADS.map(name => `${name} ${ns[program][name]}`).join(', ')}`);
  }
  if (r.nsPerPacket.from_replay !== null) lines.push(`    from_replay ${rounded(r.nsPerPacket.from_replay)}`);
  lines.push('', 'recovery, decision to last splice, against as many new connections to a warm guest', '');
  for (const where of ['netns', 'vm'] as const)
    for (const [count, x] of Object.entries(r.recovery[where] ?? {}))
      lines.push(
        `  ${where.padEnd(6)} ${count.padStart(4)} connections: ${x.ms.toFixed(1)} ms, baseline ${x.baselineMs.toFixed(1)} ms, ratio ${x.ratio.toFixed(2)}`,
      );
  for (const where of ['netns', 'vm'] as const) {
    const gap = r.gap[where];
    if (gap)
      lines.push(
        `  ${where.padEnd(6)} longest silence of one client with ${gap.acknowledged} bytes: ${gap.ms.toFixed(1)} ms beyond detection (${gap.undisturbedMs.toFixed(1)} ms without a fault)`,
      );
  }
  lines.push(...faultsTable(r.faults), '', 'goals', '', ...allGoals(r).map(line));
  if (r.redirectOnly) {
    lines.push(
      '',
      'where it goes: the netns path with programs that only redirect, against the plain bridge',
      '',
    );
    for (const name of LOADS)
      lines.push(`  ${name.padEnd(12)} ${r.redirectOnly[name].ratio.toFixed(3)}${share(r, name)}`);
  }
  for (const [what, reason] of Object.entries(r.reasons)) lines.push('', `not measured: ${what}: ${reason}`);
  return lines.join('\n');
}

const line = ({ name, goal, value, met }: Goal): string =>
  `  ${(value === null ? 'not measured' : met ? 'met' : 'MISSED').padEnd(13)}${name}: ${value === null ? '-' : rounded(value, 3)}, goal ${goal}`;

/** What one CPU spends in the programs under a load, beyond bare redirects. */
function share(r: Results, name: LoadName): string {
  const ns = r.nsPerPacket.netns;
  if (!ns) return '';
  const of = (program: 'from_wire' | 'from_guest') =>
    ((ns[program][name] - ns.redirectOnly) * ns.packetsPerSecond[program][name]) / 1e7;
  return `, and the SSW's own work takes ${rounded(of('from_wire') + of('from_guest'))}% of one CPU`;
}
