import type { Incident, IncidentDetail } from '../api/types.js';
import { formatVerdicts } from './drill-report.js';
import { localTime, oneLine } from './format.js';
import { table } from './table.js';

export function formatIncidents(incidents: readonly Incident[]): string {
  if (incidents.length === 0) return 'no incidents';
  return table(incidents, [
    { title: 'ID', right: true, cell: i => i.id },
    { title: 'SERVICE', cell: i => i.service },
    { title: 'DETECTED', cell: i => localTime(i.timeline.detectedAt) },
    { title: 'CAUSE', cell: i => i.cause },
    { title: 'GUEST', cell: i => i.guest },
    { title: 'OUTCOME', cell: outcome },
    { title: 'KEPT', right: true, cell: i => i.kept },
    { title: 'LOST', right: true, cell: i => i.lost },
    { title: 'DETAIL', cell: i => oneLine(i.detail) },
  ]);
}

/** All that is known of one, times in ms since the fault, or since its detection. */
export function formatIncident(incident: IncidentDetail): string {
  const { id, service, cause, guest, successor, epoch, detail, timeline, evidence } = incident;
  const { consoleFile, dumpFile } = incident;
  const start = timeline.faultAt ?? timeline.detectedAt;
  const moments: [string, number | undefined][] = [
    ['fault injected', timeline.faultAt],
    ['detected', timeline.detectedAt],
    ['fenced', timeline.fencedAt],
    ['takeover begins', timeline.takeoverAt],
    ['backup resumed', timeline.resumedAt],
    ['first splice', timeline.firstSpliceAt],
    ['last splice', timeline.lastSpliceAt],
    ['recovered', timeline.recoveredAt],
    ['protected again', timeline.protectedAt],
  ];
  const steps = table(
    moments.filter(([, at]) => at !== undefined),
    [
      { title: 'TIME MS', right: true, cell: ([, at]) => (at! - start).toFixed(1) },
      { title: 'STEP', cell: ([step]) => step },
    ],
  );
  return [
    `incident ${id} of ${service}, ${localTime(timeline.detectedAt)}: ${cause}, ${outcome(incident)}`,
    `${guest ?? 'a guest'} failed: ${oneLine(detail)}`,
    ...(successor === undefined ? [] : [`${successor} took over, in epoch ${epoch}`]),
    ...(consoleFile === undefined ? [] : [`console: ${consoleFile}`]),
    ...(dumpFile === undefined ? [] : [`memory: ${dumpFile}`]),
    '',
    steps,
    '',
    ...evidence.map(({ at, type, message }) => `${localTime(at)}  ${type}  ${oneLine(message)}`),
    ...(evidence.length > 0 ? [''] : []),
    ...formatVerdicts(incident),
  ].join('\n');
}

function outcome({ outcome, supersededBy }: Incident): string {
  return supersededBy === undefined ? outcome : `${outcome} by ${supersededBy}`;
}
