import type { RecoveryReport, Verdict } from '../api/types.js';
import { table } from './table.js';

/** Lost connections shown one by one; more are only counted. */
const SHOWN = 20;

/** Timeline of a recovery, ms since the fault (or, if nobody injected it, since its detection), and its verdicts. */
export function formatReport(report: RecoveryReport): string {
  const start = report.faultAt ?? report.detectedAt;
  const moments: [string, number | undefined][] = [
    ['fault injected', report.faultAt],
    ['detected', report.detectedAt],
    ['fenced', report.fencedAt],
    ['backup resumed', report.resumedAt],
    ['first splice', report.firstSpliceAt],
    ['last splice', report.lastSpliceAt],
  ];
  const timeline = table(
    moments.filter(([, at]) => at !== undefined),
    [
      { title: 'TIME MS', right: true, cell: ([, at]) => (at! - start).toFixed(1) },
      { title: 'STEP', cell: ([step]) => step },
    ],
  );
  const title = `recovery of ${report.service} from ${report.cause}, now epoch ${report.epoch}`;
  return [title, timeline, '', ...formatVerdicts(report)].join('\n');
}

export function formatVerdicts({
  kept,
  lost,
  verdicts,
}: Pick<RecoveryReport, 'kept' | 'lost' | 'verdicts'>): string[] {
  return [`connections: ${kept} kept, ${lost} lost`, ...summary(verdicts), ...lostOnes(verdicts)];
}

/** How often each outcome was given for each reason. */
function summary(verdicts: readonly Verdict[]): string[] {
  if (verdicts.length === 0) {
    return [];
  }
  const groups = new Map<string, Verdict[]>();
  for (const verdict of verdicts) {
    const key = `${verdict.outcome}\n${verdict.reason}`;
    const group = groups.get(key) ?? [];
    group.push(verdict);
    groups.set(key, group);
  }
  const text = table(
    [...groups.values()].sort((a, b) => b.length - a.length),
    [
      { title: 'COUNT', right: true, cell: group => group.length },
      { title: 'VERDICT', cell: group => group[0]!.outcome },
      { title: 'REASON', cell: group => group[0]!.reason },
      { title: 'MAX SPLICE MS', right: true, cell: slowest },
    ],
  );
  return ['', text];
}

function slowest(group: readonly Verdict[]): string | undefined {
  const times = group.flatMap(verdict => verdict.spliceMs ?? []);
  return times.length > 0 ? times.reduce((a, b) => Math.max(a, b)).toFixed(1) : undefined;
}

function lostOnes(verdicts: readonly Verdict[]): string[] {
  const lost = verdicts.filter(verdict => verdict.outcome === 'lost');
  if (lost.length === 0) {
    return [];
  }
  const text = table(lost.slice(0, SHOWN), [
    { title: 'LOST CLIENT', cell: v => v.client },
    { title: 'PORT', right: true, cell: v => v.port },
    { title: 'INPUT', right: true, cell: v => v.inputBytes },
    { title: 'OUTPUT', right: true, cell: v => v.outputBytes },
    { title: 'REASON', cell: v => v.reason },
  ]);
  return ['', text, ...(lost.length > SHOWN ? [`and ${lost.length - SHOWN} more (--json shows all)`] : [])];
}
