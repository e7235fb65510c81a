import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { STORAGE_NAME } from '../../guest-agent/wire/control-page.js';
import type { DataDisk } from '../../hypervisor-shim/hypervisor.js';
import { LibvirtError } from '../../hypervisor-shim/libvirt/libvirt-error.js';
import { LibvirtHypervisor } from '../../hypervisor-shim/libvirt/libvirt-hypervisor.js';
import { Bench, untilOff } from './support/bench.js';

const bench = new Bench();
const id = process.pid.toString(36);

test.after.always(() => bench.remove());

test('one guest alone has the data disk: the next gets it only when the last has ended', async t => {
  const hypervisor = await LibvirtHypervisor.connect({ stateDir: bench.stateDir });
  t.teardown(() => hypervisor.stop());
  const path = join(bench.directory, 'data.raw');
  writeFileSync(path, '');
  truncateSync(path, 16 << 20);
  const disk: DataDisk = { path, format: 'raw', kind: 'file' };
  const names = [`hft-disk-a-${id}`, `hft-disk-b-${id}`] as const;
  const make = (name: string) => hypervisor.define(bench.spec(name, 'disk', { takesDataDisk: true }));
  const old = await make(names[0]);
  const next = await make(names[1]);
  for (const guest of [old, next]) {
    await guest.start();
    await bench.console(guest.name, 'guest-up');
    t.false(await guest.hasDataDisk());
  }
  await old.attachDisk(disk);
  t.true(await old.hasDataDisk());
  await bench.console(names[0], STORAGE_NAME);
  await next.suspend();
  await old.suspend();

  const refused = await t.throwsAsync(next.attachDisk(disk), { instanceOf: LibvirtError });
  t.regex(refused!.message, /lock/, 'a paused guest still has it');
  t.false(await next.hasDataDisk());

  const gone: string[] = [];
  hypervisor.on('guest', event => event.kind === 'gone' && gone.push(event.guest));
  const killed = performance.now();
  await old.kill();
  const ended = performance.now();
  await old.kill();
  await next.attachDisk(disk);
  t.log(
    `ended in ${(ended - killed).toFixed(0)} ms, plugged in ${(performance.now() - ended).toFixed(0)} ms later`,
  );
  t.true(await next.hasDataDisk());
  await next.resume();
  await bench.console(names[1], STORAGE_NAME);
  await untilOff(old);
  t.deepEqual(gone, [], 'an end that was asked for is no event');
  await next.kill();
  await untilOff(next);
  for (const guest of [old, next]) await guest.undefine();
});
