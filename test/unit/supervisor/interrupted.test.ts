import test from 'ava';
import type { HoldfastEvent } from '../../../supervisor/api/types.js';
import { readInterrupted } from '../../../supervisor/recovery/interrupted.js';

let seq = 0;
const event = (type: string, data: Record<string, unknown> = {}, service = 'web'): HoldfastEvent => {
  seq++;
  return { seq, at: 1000 + seq, type, service, message: '', data };
};
const started = (cause: string) => event('recovery.started', { cause, detectedAt: 5, fencedAt: 6, epoch: 2 });
const kept = (flow: number, port = 80) =>
  event('connection.kept', { flow, client: `192.0.2.9:${flow}`, port, reason: 'spliced', at: 7 });
const lost = (flow: number) =>
  event('connection.lost', { flow, client: `192.0.2.9:${flow}`, reason: 'late' });

async function* all(events: HoldfastEvent[]): AsyncGenerator<HoldfastEvent> {
  yield* events;
}
const read = (...events: HoldfastEvent[]) => readInterrupted(all(events), 'web');

test('a recovery without an end is found, with its cause and the verdicts so far', async t => {
  const found = await read(event('service.starting'), started('guest-panic'), kept(1), lost(2), kept(3));
  t.like(found?.interrupted.fault, { cause: 'guest-panic', detectedAt: 5, fencedAt: 6 });
  t.deepEqual(
    [...found!.verdicts.values()].map(v => [v.id, v.outcome, v.reason]),
    [
      [1, 'kept', 'spliced'],
      [2, 'lost', 'late'],
      [3, 'kept', 'spliced'],
    ],
  );
});

test('one that has its report owes nothing, nor does a service of the same name before', async t => {
  t.is(await read(started('guest-panic'), kept(1), event('recovery.done')), undefined);
  t.is(await read(started('guest-panic'), kept(1), event('service.starting')), undefined);
  t.is(await read(kept(1)), undefined);
});

test('a second fault in its midst: one report for both, the last word counts', async t => {
  const found = await read(started('guest-panic'), kept(1), kept(2), started('guest-gone'), lost(1));
  t.is(found?.interrupted.fault.cause, 'guest-gone');
  t.deepEqual(
    [...found!.verdicts.values()].map(v => [v.id, v.outcome]),
    [
      [1, 'lost'],
      [2, 'kept'],
    ],
  );
});

test('other services do not count', async t => {
  t.is(await read(event('recovery.started', {}, 'mail')), undefined);
  const found = await read(started('guest-panic'), event('connection.kept', { flow: 1 }, 'mail'));
  t.is(found?.verdicts.size, 0);
});
