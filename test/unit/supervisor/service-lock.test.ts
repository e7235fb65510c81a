import { spawn } from 'node:child_process';
import { once } from 'node:events';
import test from 'ava';
import { heldServices, holderOf, ServiceLocks } from '../../../supervisor/service/service-lock.js';
import { errorOf } from './helpers.js';

const NAME = `u${process.pid}`.slice(0, 12);

test('a service belongs to one daemon, until that lets it go', async t => {
  const one = new ServiceLocks();
  const other = new ServiceLocks();
  one.take(NAME);
  t.is((await errorOf(() => one.take(NAME))).code, 'HF_SERVICE_BUSY');
  const error = await errorOf(() => other.take(NAME));
  t.is(error.code, 'HF_SERVICE_ELSEWHERE');
  t.true(error.message.includes(`pid ${process.pid}`), error.message);
  t.is(holderOf(NAME), process.pid);
  t.true(heldServices().includes(NAME));
  one.releaseAll();
  t.is(holderOf(NAME), undefined);
  other.take(NAME);
  other.release(NAME);
});

test('the lock of a daemon that was killed is free', async t => {
  const name = `k${process.pid}`.slice(0, 12);
  const module = new URL('../../../supervisor/service/service-lock.js', import.meta.url).href;
  const script = `import { ServiceLocks } from '${module}';
    new ServiceLocks().take('${name}'); console.log('taken'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script]);
  await once(child.stdout!, 'data');
  const locks = new ServiceLocks();
  t.is(holderOf(name), child.pid);
  t.regex((await errorOf(() => locks.take(name))).message, new RegExp(`pid ${child.pid}$`));
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.is(holderOf(name), undefined);
  locks.take(name);
  locks.releaseAll();
});
