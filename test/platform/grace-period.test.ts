import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { native } from '../../hypervisor-shim/native/native.js';

const EXPEDITED = '/sys/kernel/rcu_expedited';
const WAITERS = 4;
const ROUNDS = 200;

const waiter = `
  const { native } = await import(${JSON.stringify(new URL('../../hypervisor-shim/native/native.js', import.meta.url).href)});
  for (let i = 0; i < ${ROUNDS}; i++) native.gracePeriod();`;

test('a grace period leaves the kernel as it was, whoever else waits for one', async t => {
  const before = readFileSync(EXPEDITED, 'utf8');
  const url = new URL(`data:text/javascript,${encodeURIComponent(waiter)}`);
  const ends = Array.from({ length: WAITERS }, () => {
    const worker = new Worker(url);
    return new Promise<number>((resolve, reject) => worker.on('exit', resolve).on('error', reject));
  });
  native.gracePeriod();
  t.deepEqual(await Promise.all(ends), Array(WAITERS).fill(0));
  t.is(readFileSync(EXPEDITED, 'utf8'), before);
});
