/** What is crossed with the stages: kinds of clients, disturbances of the legs, clocks of the guests. */
import { type Kind, LEGS, type Leg } from './injector.js';

export interface ClientKind {
  sack: boolean;
  /** Its timestamps: as the host's clock, none, or far from it. */
  timestamps: 'same' | 'none' | 'far';
  /** Window scale that it offers. */
  wscale: 'none' | 0 | 7 | 14;
  mss: 536 | 1460 | 8960;
  family: 4 | 6;
}

export interface Disturbance {
  name: string;
  leg?: LegKind;
  kind?: Kind;
}

/** Clock of each guest against the host's. */
export interface Clocks {
  name: string;
  guests: [number, number];
}

const FACTORS: { [K in keyof ClientKind]: ClientKind[K][] } = {
  sack: [true, false],
  timestamps: ['same', 'none', 'far'],
  wscale: ['none', 0, 7, 14],
  mss: [536, 1460, 8960],
  family: [4, 6],
};

const KINDS: Kind[] = ['loss', 'duplication', 'reordering'];
export type LegKind = 'client' | 'guest' | 'replay';
const LEG_KINDS: LegKind[] = ['client', 'guest', 'replay'];

export const DISTURBANCES: Disturbance[] = [
  { name: 'none' },
  ...LEG_KINDS.flatMap(leg => KINDS.map(kind => ({ name: `${leg} leg: ${kind}`, leg, kind }))),
];

/** Legs that a disturbance touches: those of all clients, or of both guests. */
export const disturbedLegs = (d: Disturbance): Leg[] =>
  d.leg === undefined ? [] : LEGS.filter(leg => leg.startsWith(d.leg!));

/** Far enough that the second guest's own timestamps are old, or new, by the rules of PAWS (RFC 7323, section 5). */
export const CLOCKS: Clocks[] = [
  { name: 'second guest behind', guests: [0x12345678, 0x01234567] },
  { name: 'second guest ahead', guests: [0x01234567, 0x12345678] },
  { name: 'same clock', guests: [0, 0] },
];

export const nameOf = (c: ClientKind): string =>
  `${c.sack ? 'SACK' : 'no SACK'}, timestamps ${c.timestamps}, wscale ${c.wscale}, MSS ${c.mss}, IPv${c.family}`;

/** Every combination of a client's options. */
export function allClients(): ClientKind[] {
  return FACTORS.sack.flatMap(sack =>
    FACTORS.timestamps.flatMap(timestamps =>
      FACTORS.wscale.flatMap(wscale =>
        FACTORS.mss.flatMap(mss => FACTORS.family.map(family => ({ sack, timestamps, wscale, mss, family }))),
      ),
    ),
  );
}

/** So few of them that each pair of values of two options occurs: greedy, so the same in every run. */
export function pairwiseClients(): ClientKind[] {
  const pairs = (c: ClientKind): string[] => {
    const values = Object.entries(c).map(([name, value]) => `${name}=${value}`);
    return values.flatMap((a, i) => values.slice(i + 1).map(b => `${a} ${b}`));
  };
  const missing = new Set(allClients().flatMap(pairs));
  const chosen: ClientKind[] = [];
  while (missing.size) {
    const gain = (c: ClientKind) => pairs(c).filter(p => missing.has(p)).length;
    const best = allClients().reduce((a, b) => (gain(b) > gain(a) ? b : a));
    for (const p of pairs(best)) missing.delete(p);
    chosen.push(best);
  }
  return chosen;
}

/** One laboratory: so many clients, each with one connection in every stage, meet one failover. */
export interface BedPlan {
  id: string;
  clients: ClientKind[];
  disturbance: Disturbance;
  clocks: Clocks;
  seed: number;
}

const CLIENTS_PER_BED = 4;

function beds(clients: ClientKind[], clocksOf: (bed: number) => Clocks[], seed: number): BedPlan[] {
  const plans: BedPlan[] = [];
  for (const disturbance of DISTURBANCES) {
    for (let i = 0; i < clients.length; i += CLIENTS_PER_BED) {
      for (const clocks of clocksOf(plans.length)) {
        plans.push({
          id: `${disturbance.name} | ${clocks.name} | ${i}`,
          clients: clients.slice(i, i + CLIENTS_PER_BED),
          disturbance,
          clocks,
          seed: seed + plans.length,
        });
      }
    }
  }
  return plans;
}

/** All stages x pairwise combinations of a client's options x all disturbances; clocks take turns. */
export const pairwisePlan = (seed: number): BedPlan[] =>
  beds(pairwiseClients(), n => [CLOCKS[n % CLOCKS.length]!], seed);

/** Everything with everything. */
export const fullPlan = (seed: number): BedPlan[] => beds(allClients(), () => CLOCKS, seed);

/** Of the pairwise plan one laboratory for each disturbance, chosen by the seed. */
export function samplePlan(seed: number): BedPlan[] {
  const all = pairwisePlan(seed);
  const per = all.length / DISTURBANCES.length;
  return DISTURBANCES.map((_, i) => all[i * per + ((seed + i) % per)]!);
}
