import type { RoundNumbers } from '../lib/assess.js';
import type { ScenarioResult } from '../lib/scenario.js';

/** Totals over all rounds: counts are summed, times are the worst. */
export function summaryLine(result: ScenarioResult): Record<string, unknown> {
  const { rounds } = result;
  const sum = (of: (round: RoundNumbers) => number) => rounds.reduce((total, round) => total + of(round), 0);
  const worst = (of: (round: RoundNumbers) => number) =>
    rounds.reduce((most, round) => Math.max(most, of(round)), 0);
  return {
    scenario: result.scenario,
    ok: result.failures.length === 0,
    accel: result.accel,
    rounds: rounds.length,
    connections: sum(r => r.connections),
    inFlightAtFault: sum(r => r.inFlightAtFault),
    kept: sum(r => r.kept),
    lost: sum(r => r.lost),
    corrupt: sum(r => r.corrupt),
    resets: sum(r => r.resets),
    reconnects: sum(r => r.reconnects),
    servedByBackup: sum(r => r.servedByBackup),
    detectMs: worst(r => r.detectMs),
    spliceMs: worst(r => r.spliceMs ?? 0),
    longestGapMs: worst(r => r.longestGapMs),
    longestActiveGapMs: worst(r => r.longestActiveGapMs),
    calmGapMs: worst(r => r.calmGapMs),
    leftovers: result.leftovers.length,
    failures: result.failures.length,
  };
}
