import { LOADS } from './loads.js';
import type { Results } from './report.js';

export interface Goal {
  name: string;
  /** The bound, with its direction. */
  goal: string;
  /** Null: not measured. */
  value: number | null;
  met: boolean;
}

/** What the project set out to reach, beside what was measured. A missed goal stays in the report. */
export function goals(r: Results): Goal[] {
  const atLeast = (name: string, bound: number, value: number | undefined): Goal => ({
    name,
    goal: `at least ${bound}`,
    value: value ?? null,
    met: value !== undefined && value >= bound,
  });
  const atMost = (name: string, bound: number, unit: string, value: number | undefined): Goal => ({
    name,
    goal: `at most ${bound}${unit}`,
    value: value ?? null,
    met: value !== undefined && value <= bound,
  });
  const ns = r.nsPerPacket.netns;
  return [
    ...LOADS.map(name => atLeast(`${name}, VM`, 0.99, r.throughput.vm?.[name].ratio)),
    ...(['bulkDown', 'bulkUp'] as const).map(name =>
      atLeast(`${name}, netns`, 0.95, r.throughput.netns?.[name].ratio),
    ),
    atMost(
      'a packet without payload, beyond a bare redirect',
      150,
      ' ns',
      ns ? ns.ack - ns.redirectOnly : undefined,
    ),
    ...(['netns', 'vm'] as const).flatMap(where => [
      ...['1', '100', '1000'].map(count =>
        atMost(
          `recovery of ${count}, ${where}, against its baseline`,
          1.5,
          '',
          r.recovery[where]?.[count]?.ratio,
        ),
      ),
      atMost(`silence beyond detection, ${where}`, 100, ' ms', r.gap[where]?.ms),
    ]),
  ];
}
