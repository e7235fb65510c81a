import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { BedResult, Cell } from './bed.js';
import { type BedPlan, DISTURBANCES, nameOf } from './plan.js';
import { STAGE_NAMES } from './stages.js';

/** What is kept between runs of one sweep. */
export interface SweepFile {
  commit: string;
  seed: number;
  /** By the plan's id. */
  beds: Record<string, BedResult>;
}

/** Goes on with what an earlier run at the same commit has left. */
export function loadSweep(path: string, commit: string, seed: number, fresh: boolean): SweepFile {
  if (!fresh && existsSync(path)) {
    const file = JSON.parse(readFileSync(path, 'utf8')) as SweepFile;
    if (file.commit === commit && file.seed === seed) return file;
  }
  return { commit, seed, beds: {} };
}

export function saveSweep(path: string, file: SweepFile): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(file, null, 1)}\n`);
}

/** What should be true of a laboratory's run and is not. */
export function faultsOf(result: BedResult, plan: BedPlan): string[] {
  const faults = result.cells.flatMap(c => (c.why ? [`${c.stage} | ${c.client}: ${c.why}`] : []));
  const { kind } = plan.disturbance;
  const { lost, doubled, held } = result.effects;
  const done = { loss: lost, duplication: doubled, reordering: held };
  if (kind && done[kind] === 0) faults.push(`the injector did nothing: ${kind}`);
  return [...faults, ...result.leftovers.map(l => `left over: ${l}`)];
}

/** All cells of a plan as if each had passed: what the table must come to. */
export const passingCells = (plans: BedPlan[]): Cell[] =>
  plans.flatMap(plan =>
    STAGE_NAMES.flatMap(stage =>
      plan.clients.map(client => ({
        stage,
        client: nameOf(client),
        disturbance: plan.disturbance.name,
        clocks: plan.clocks.name,
      })),
    ),
  );

/** Stages x disturbances; in each field the clients whose connection ended whole, of all. */
export function table(cells: Cell[]): string {
  const field = (stage: string, disturbance: string): string => {
    const here = cells.filter(c => c.stage === stage && c.disturbance === disturbance);
    return `${here.filter(c => !c.why).length}/${here.length}`;
  };
  const row = (words: string[]): string => `| ${words.join(' | ')} |`;
  const names = DISTURBANCES.map(d => d.name);
  const clients = [...new Set(cells.map(c => c.client))];
  const passed = cells.filter(c => !c.why).length;
  return `${[
    '# The sweep: a failover at every stage of a connection',
    '',
    `Made by \`make sweep\`. ${passed} of ${cells.length} cells passed: both streams whole at both ends by SHA-256, no`,
    'reset, no second connection. A field counts the kinds of clients.',
    '',
    row(['stage', ...names]),
    row(['---', ...names.map(() => '---')]),
    ...STAGE_NAMES.map(stage => row([stage, ...names.map(name => field(stage, name))])),
    '',
    'Clients:',
    '',
    ...clients.map(client => `- ${client}`),
  ].join('\n')}\n`;
}
