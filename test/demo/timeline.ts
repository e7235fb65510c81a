import type { RoundResult } from '../lib/scenario.js';

/** What happened when, in ms after the fault, and what the clients saw of it. */
export function timeline(round: RoundResult): string {
  const { report } = round;
  const zero = report.faultAt ?? report.detectedAt;
  const at = (moment: number | undefined, what: string) =>
    `${(moment === undefined ? '-' : (moment - zero).toFixed(1)).padStart(10)} ms  ${what}`;
  return [
    `recovery from ${report.cause}, now epoch ${report.epoch}`,
    at(zero, 'fault'),
    at(report.detectedAt, 'detected'),
    at(report.fencedAt, 'primary fenced'),
    at(report.resumedAt, `backup resumed (booted and suspended before, boot id ${round.newBootId})`),
    at(report.firstSpliceAt, 'first connection spliced'),
    at(report.lastSpliceAt, 'last connection spliced'),
    '',
    `clients: ${round.connections} connections, ${round.inFlightAtFault} in flight at the fault, ${round.kept} byte-exact,`,
    `         ${round.lost} lost, ${round.corrupt} corrupt, ${round.resets} resets, ${round.reconnects} reconnects`,
    `longest wait for a packet: ${round.longestGapMs} ms (busy connections ${round.longestActiveGapMs} ms; ` +
      `before the fault, by the clients' own pace, ${round.calmGapMs} ms)`,
    '',
  ].join('\n');
}
