import type { Memory } from './readings.js';
import type { Stage } from './trial.js';

export interface MemoryFigures {
  /** Bytes for each idle connection, by the difference of the highest level from the lowest. */
  perConnection: Memory & { kernelAndLog: number; all: number };
  levels: (Memory & { count: number; replaySockets: number })[];
}

/** What each more idle connection takes, from levels of rising numbers. */
export async function memoryPerConnection(
  stage: Stage,
  counts: number[],
  log: (line: string) => void,
): Promise<MemoryFigures> {
  const levels = [];
  for (const count of counts) {
    levels.push({ count, ...(await stage.memory(count)) });
    log(`memory with ${count} idle: ${JSON.stringify(levels.at(-1))}`);
  }
  const [low, high] = [levels[0]!, levels.at(-1)!];
  const of = (key: keyof Memory) => Math.round((high[key] - low[key]) / (high.count - low.count));
  const perConnection = {
    flowRecords: of('flowRecords'),
    indexEntries: of('indexEntries'),
    logSegments: of('logSegments'),
    sockets: of('sockets'),
    guestHeap: of('guestHeap'),
    supervisorHeap: of('supervisorHeap'),
  };
  const { flowRecords, indexEntries, logSegments, sockets } = perConnection;
  const kernelAndLog = flowRecords + indexEntries + logSegments + sockets;
  const all = kernelAndLog + perConnection.guestHeap + perConnection.supervisorHeap;
  return { perConnection: { ...perConnection, kernelAndLog, all }, levels };
}
