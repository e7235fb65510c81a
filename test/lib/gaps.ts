import type { ConnectionTrace } from './tcp-trace.js';

/**
 * Longest time within [fromMs, toMs] for which a client waited for a packet of the server while its transfer was incomplete.
 *
 * Waiting begins at the server's last packet, or, where the client then sent something new (the next request on an idle
 * connection), at that moment: an idle keep-alive connection waits for nobody. The transfer is complete with the
 * last new byte from the server; one that nobody closed and that just fell silent waits until `toMs`.
 */
export function longestSilence(connection: ConnectionTrace, fromMs: number, toMs: number): number {
  const { waits, toClient, closingMs } = connection;
  const completeMs = toClient.lastDataMs ?? toMs;
  let longest = 0;
  for (let i = 0; i < waits.length; i += 2) {
    const end = waits[i + 1]!;
    if (end > completeMs) break;
    longest = Math.max(longest, Math.min(end, toMs) - Math.max(waits[i]!, fromMs));
  }
  if (closingMs === undefined) longest = Math.max(longest, toMs - Math.max(waits.at(-1) ?? fromMs, fromMs));
  return longest;
}

export interface TraceSummary {
  connections: number;
  resets: number;
  /** Connections beyond the expected number, and second SYNs with another ISN. */
  reconnects: number;
  synRetransmissions: number;
  retransmissionsToClient: number;
  retransmissionsToServer: number;
}

/** Totals over all connections of a trace of which `expected` connections should be seen, each opened once. */
export function summarize(
  trace: { connections: ConnectionTrace[]; resets: unknown[] },
  expected: number,
): TraceSummary {
  const sum = (of: (connection: ConnectionTrace) => number) =>
    trace.connections.reduce((total, connection) => total + of(connection), 0);
  // the last packets of a connection opened before the capture are no new connection
  const opened = trace.connections.filter(connection => connection.syns > 0).length;
  return {
    connections: opened,
    resets: trace.resets.length,
    reconnects: sum(c => c.reconnects) + Math.max(opened - expected, 0),
    synRetransmissions: sum(c => c.synRetransmissions),
    retransmissionsToClient: sum(c => c.toClient.retransmissions),
    retransmissionsToServer: sum(c => c.toServer.retransmissions),
  };
}
