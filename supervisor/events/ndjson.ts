import type { HoldfastEvent } from '../api/types.js';

/** One JSON line per event, newline included. Whatever `data` holds, it can be written: an event is never refused. */
export function encodeEvent(event: HoldfastEvent): string {
  try {
    return `${JSON.stringify(event, portable)}\n`;
  } catch (error) {
    return `${JSON.stringify({ ...event, data: { unserializable: String(error) } })}\n`;
  }
}

/** The event on a line, or undefined for one that is torn, damaged or foreign. */
export function decodeEvent(line: string): HoldfastEvent | undefined {
  try {
    const value = JSON.parse(line) as HoldfastEvent | null;
    // JSON has no undefined: events of no service come without the field.
    return isEvent(value) ? { ...value, service: value.service } : undefined;
  } catch {
    return undefined;
  }
}

/** By hand: a recovery writes and reads them by the thousand. */
function isEvent(value: HoldfastEvent | null): value is HoldfastEvent {
  const { seq, at, type, message, service, data } = value ?? ({} as Partial<HoldfastEvent>);
  return (
    Number.isSafeInteger(seq) &&
    typeof at === 'number' &&
    typeof type === 'string' &&
    typeof message === 'string' &&
    (service === undefined || typeof service === 'string') &&
    typeof data === 'object' &&
    data !== null
  );
}

/** Splits a stream of text into its non-empty lines; an unfinished last one is given as well. */
export async function* splitLines(chunks: AsyncIterable<string>): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of chunks) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    yield* lines.filter(line => line !== '');
  }
  if (rest !== '') {
    yield rest;
  }
}

/** 64-bit counters and errors are common in event data, and JSON has neither. */
function portable(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') {
    return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  }
  return value instanceof Error ? { name: value.name, message: value.message } : value;
}
