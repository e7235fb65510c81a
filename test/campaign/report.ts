import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { FaultKind } from './faults.js';
import type { FaultRecord } from './leg.js';
import type { Outcome } from './population.js';

/** A connection that met faults and did not end well. */
export interface Loss {
  label: string;
  faults: number[];
  reason: string;
  corrupt: boolean;
}

/** What is kept between runs of one campaign. */
export interface CampaignFile {
  seed: number;
  commit: string;
  faults: FaultRecord[];
  losses: Loss[];
  /** Clients that ended, in all, and those of them that met no fault. */
  clients: number;
  resets: number;
  leftovers: string[];
  /** The run without faults beside it. */
  control: { clients: number; failed: number; corrupt: number; resets: number };
}

export interface CampaignSummary {
  faults: number;
  /** Open connections, summed over the faults: one that lived through three counts three times. */
  connections: number;
  kept: number;
  lost: number;
  corrupt: number;
  seed: number;
  resets: number;
  leastBusy: number;
  notProtectedAgain: number;
  kinds: Partial<Record<FaultKind, number>>;
  control: CampaignFile['control'];
}

export function loadCampaign(path: string, seed: number, commit: string): CampaignFile {
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')) as CampaignFile;
  return {
    seed,
    commit,
    faults: [],
    losses: [],
    clients: 0,
    resets: 0,
    leftovers: [],
    control: { clients: 0, failed: 0, corrupt: 0, resets: 0 },
  };
}

export function saveCampaign(path: string, file: CampaignFile): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(file, null, 1)}\n`);
}

export function lossesOf(outcomes: readonly Outcome[]): Loss[] {
  return outcomes
    .filter(({ result }) => !result.ok)
    .map(({ result, faults }) => ({
      label: result.label,
      faults,
      reason: result.error ?? 'unknown',
      corrupt: result.corrupt,
    }));
}

export function summarizeCampaign(file: CampaignFile): CampaignSummary {
  const connections = file.faults.reduce((sum, fault) => sum + fault.open, 0);
  const lost = file.losses.length;
  const kinds: CampaignSummary['kinds'] = {};
  for (const { kind } of file.faults) kinds[kind] = (kinds[kind] ?? 0) + 1;
  return {
    faults: file.faults.length,
    connections,
    kept: connections - lost,
    lost,
    corrupt: file.losses.filter(loss => loss.corrupt).length,
    seed: file.seed,
    resets: file.resets,
    leastBusy: Math.min(...file.faults.map(fault => fault.busy)),
    notProtectedAgain: file.faults.filter(fault => fault.protectedMs === undefined).length,
    kinds,
    control: file.control,
  };
}
