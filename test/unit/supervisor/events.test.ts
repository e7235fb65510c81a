import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { HoldfastEvent } from '../../../supervisor/api/types.js';
import { EventLog } from '../../../supervisor/events/event-log.js';
import { temporaryFolder } from './helpers.js';

async function all(events: AsyncIterable<HoldfastEvent>): Promise<HoldfastEvent[]> {
  const list = [];
  for await (const event of events) {
    list.push(event);
  }
  return list;
}

const seqs = (events: HoldfastEvent[]) => events.map(event => event.seq);

test('events are read back as they were appended, and numbers go on after a restart', async t => {
  const dir = temporaryFolder();
  const first = EventLog.open(dir);
  const one = first.append('service.protected', 'web', 'ok', { bytes: 12n, error: new Error('x') });
  const two = first.append('recovery.done', undefined, 'done');
  t.deepEqual(one.data, { bytes: 12, error: { name: 'Error', message: 'x' } });
  await first.close();

  const second = EventLog.open(dir);
  t.is(second.lastSeq, 2);
  t.deepEqual(await all(second.since(0)), [one, two]);
  t.is(second.append('a', undefined, '').seq, 3);
  t.deepEqual(seqs(await all(second.since(2))), [2, 3]);
  t.deepEqual(seqs(await all(second.since(9))), []);
  await second.close();
});

test('an event whose data no JSON can hold is kept without it', async t => {
  const log = EventLog.open(temporaryFolder());
  const loop: Record<string, unknown> = {};
  loop.self = loop;
  t.regex(String(log.append('a', 'web', 'loop', loop).data.unserializable), /circular/);
  await log.close();
});

const tails: [string, string | Buffer][] = [
  ['half a line', '{"seq":3,"at":1,"ty'],
  ['zeros of a crashed file system', Buffer.alloc(5000)],
  ['a whole line of garbage', 'garbage\n\n'],
];
for (const [name, tail] of tails) {
  test(`a torn tail is cut off: ${name}`, async t => {
    const dir = temporaryFolder();
    const file = join(dir, 'events.ndjson');
    const first = EventLog.open(dir);
    first.append('a', undefined, 'one');
    first.append('a', undefined, 'two');
    await first.close();
    appendFileSync(file, tail);

    const second = EventLog.open(dir);
    const events = await all(second.since(1));
    t.deepEqual(seqs(events), [1, 2, 3]);
    t.like(events[2], { type: 'events.repaired', data: { bytes: tail.length } });
    await second.close();
    t.is(readFileSync(file, 'utf8').trim().split('\n').length, 3);
  });
}

test('a file of nothing but garbage starts anew', async t => {
  const dir = temporaryFolder();
  writeFileSync(join(dir, 'events.ndjson'), 'garbage');
  const log = EventLog.open(dir);
  t.deepEqual(seqs(await all(log.since(0))), [1]);
  await log.close();
});

test('two files bound the size, and numbers survive the rotation', async t => {
  const dir = temporaryFolder();
  const log = EventLog.open(dir, { maxBytes: 4000 });
  for (let i = 0; i < 200; i++) {
    log.append('guest.x', 'web', 'x'.repeat(50));
  }
  await log.close();
  for (const file of ['events.ndjson', 'events.1.ndjson']) {
    t.true(statSync(join(dir, file)).size <= 4000);
  }
  const again = EventLog.open(dir, { maxBytes: 4000 });
  const kept = seqs(await all(again.since(0)));
  t.is(again.lastSeq, 200);
  t.true(kept.length > 20);
  t.deepEqual(
    kept,
    Array.from({ length: kept.length }, (_, i) => 200 - kept.length + 1 + i),
  );
  await again.close();
});

test('follow gives the past, then the present, without gap or repetition, until aborted', async t => {
  const dir = temporaryFolder();
  const before = EventLog.open(dir);
  before.append('a', undefined, '');
  await before.close();
  const log = EventLog.open(dir);
  const stop = new AbortController();
  const following = all(log.follow(1, stop.signal));
  for (let i = 0; i < 50; i++) {
    log.append('a', undefined, '');
    await (i % 7 === 0 ? sleep(1) : undefined);
  }
  await sleep(20);
  stop.abort();
  t.deepEqual(
    seqs(await following),
    Array.from({ length: 51 }, (_, i) => i + 1),
  );
  await log.close();
});

test('a follower too slow for the memory reads the rest from the files', async t => {
  const log = EventLog.open(temporaryFolder());
  const stop = new AbortController();
  const follower = log.follow(1, stop.signal);
  log.append('a', undefined, '');
  t.is((await follower.next()).value!.seq, 1);
  for (let i = 0; i < 3000; i++) {
    log.append('a', undefined, '');
  }
  for (let seq = 2; seq <= 3001; seq++) {
    const { value } = await follower.next();
    if (value!.seq !== seq) {
      t.is(value!.seq, seq);
    }
  }
  stop.abort();
  t.true((await follower.next()).done);
  await log.close();
});

test('closing ends the followers; later events are reported, not stored', async t => {
  const errors: Error[] = [];
  const log = EventLog.open(temporaryFolder(), { onError: error => errors.push(error) });
  const following = all(log.follow(0, new AbortController().signal));
  log.append('a', undefined, '');
  await sleep(10);
  await log.close();
  t.deepEqual(seqs(await following), [1]);
  log.append('late', undefined, '');
  t.regex(errors[0]!.message, /closed/);
});
