import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlOperations } from '../api/types.js';
import { formatEvent } from './format.js';
import type { Output } from './output.js';

/** How long to wait for the last events after the operation, ms. */
const DRAIN_MS = 500;

/** Runs a long operation and meanwhile shows the daemon's events on stderr. Trouble with the events never fails it. */
export async function withProgress<T>(
  client: ControlOperations,
  output: Output,
  operation: () => Promise<T>,
): Promise<T> {
  if (!output.showsProgress) {
    return operation();
  }
  let shown = (await client.daemon()).lastEvent;
  const stop = new AbortController();
  const show = async () => {
    for await (const event of client.events(shown + 1, true, stop.signal)) {
      output.note(formatEvent(event));
      shown = event.seq;
    }
  };
  const shows = show().catch(() => {});
  try {
    return await operation();
  } finally {
    const last = await client.daemon().then(
      daemon => daemon.lastEvent,
      () => 0,
    );
    for (let waited = 0; shown < last && waited < DRAIN_MS; waited += 10) {
      await sleep(10);
    }
    stop.abort();
    await shows;
  }
}
