import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { Guest } from '../../hypervisor-shim/hypervisor.js';
import { mountedOver } from '../../hypervisor-shim/libvirt/daemon-config.js';
import { LibvirtHypervisor } from '../../hypervisor-shim/libvirt/libvirt-hypervisor.js';
import { PrivateDaemon } from '../../hypervisor-shim/libvirt/private-daemon.js';
import { processesOf } from '../lib/processes.js';
import { Bench, nextEvent, untilOff } from './support/bench.js';

const bench = new Bench();
const id = process.pid.toString(36);
const hostDirectories = () => Object.values(mountedOver).filter(directory => existsSync(directory));
const before = hostDirectories();
test.after.always(() => bench.remove());

test.serial('a second connection adopts the daemon, and close leaves it and its guests alone', async t => {
  const first = await LibvirtHypervisor.connect({ stateDir: bench.stateDir });
  t.teardown(() => first.stop());
  const name = `hft-adopt-${id}`;
  const guest = await first.define(bench.spec(name, 'idle'));
  await guest.start();
  await first.close();

  const daemon = await PrivateDaemon.ensure(bench.stateDir);
  t.true(daemon.adopted);
  const second = await LibvirtHypervisor.connect({ stateDir: bench.stateDir });
  t.teardown(() => second.close());
  const adopted = await second.lookup(name);
  t.is(await adopted?.state(), 'running');
  const pid = await adopted?.pid();
  const gone = nextEvent(second, name, 'gone');
  process.kill(pid as number, 'SIGKILL');
  await gone;
  t.pass('a guest that was there before is watched too');
});

test.serial(
  'guests survive the death of libvirtd, faults are seen without it, and it comes back',
  async t => {
    const hypervisor = await LibvirtHypervisor.connect({ stateDir: bench.stateDir });
    t.teardown(() => hypervisor.stop());
    const names = [`hft-x-${id}`, `hft-y-${id}`] as const;
    const [kept, victim] = await Promise.all(names.map(name => hypervisor.define(bench.spec(name, 'idle'))));
    await kept?.start();
    await victim?.start();
    const pid = await kept?.pid();
    const victimPid = (await victim?.pid()) as number;

    const gone = nextEvent(hypervisor, names[1], 'gone', 2000);
    process.kill((await PrivateDaemon.ensure(bench.stateDir)).pid, 'SIGKILL');
    process.kill(victimPid, 'SIGKILL');
    await gone;

    const died = Date.now();
    await kept?.suspend();
    t.log(`first call after the daemon's death answered after ${Date.now() - died} ms`);
    t.is(await kept?.state(), 'paused');
    t.is(await kept?.pid(), pid);
    const resumed = nextEvent(hypervisor, names[0], 'resumed');
    await kept?.resume();
    await resumed;
    await untilOff(victim as Guest);
  },
);

test.serial('two private daemons live side by side; stopping one leaves the other whole', async t => {
  const other = `${bench.stateDir}-2`;
  const one = await PrivateDaemon.ensure(bench.stateDir);
  const two = await PrivateDaemon.ensure(other);
  t.teardown(() => two.stop());
  t.not(one.pid, two.pid);
  await one.stop();
  const hypervisor = await LibvirtHypervisor.connect({ stateDir: other });
  const guest = await hypervisor.define(bench.spec(`hft-two-${id}`, 'idle'));
  await guest.start();
  t.is(await guest.state(), 'running');
  await hypervisor.stop();
});

test.serial('nothing is left outside the state directory', async t => {
  await sleep(200);
  t.deepEqual(
    hostDirectories().filter(path => !before.includes(path)),
    [],
  );
  t.notRegex(readFileSync('/proc/self/mounts', 'utf8'), /libvirt/);
  t.deepEqual(processesOf(bench.directory), []);
  t.false(existsSync(join(bench.stateDir, 'libvirt/run')));
});

test.serial('a state directory too deep for a unix socket is refused by name', async t => {
  const deep = join(bench.directory, 'd'.repeat(100));
  await t.throwsAsync(PrivateDaemon.ensure(deep), { code: 'HF_STATE_DIR', message: /stateDir/ });
  t.false(existsSync(deep));
});
