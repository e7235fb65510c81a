import test from 'ava';
import { LibvirtHypervisor } from '../../hypervisor-shim/libvirt/libvirt-hypervisor.js';
import { Bench, nextEvent } from './support/bench.js';

const bench = new Bench();
test.after.always(() => bench.remove());

test('the backup resumes at once while libvirt still cleans up after the primary', async t => {
  const hypervisor = await LibvirtHypervisor.connect({ stateDir: bench.stateDir });
  t.teardown(() => hypervisor.stop());
  const names = [`hft-primary-${process.pid}`, `hft-backup-${process.pid}`] as const;
  const primary = await hypervisor.define(bench.spec(names[0], 'idle'));
  const backup = await hypervisor.define(bench.spec(names[1], 'idle'));
  const delays: number[] = [];
  for (let round = 0; round < 3; round++) {
    await primary.start();
    await backup.start();
    await Promise.all(names.map(name => bench.console(name, 'guest-up')));
    await backup.suspend();

    const gone = nextEvent(hypervisor, names[0], 'gone');
    const pid = (await primary.pid()) as number;
    const killed = process.hrtime.bigint();
    process.kill(pid, 'SIGKILL');
    await gone;
    // libvirt answers this only when it is done with the dead guest; the resume must not queue behind it.
    const slow = primary.state();
    await backup.resume();
    delays.push(Number(process.hrtime.bigint() - killed) / 1e6);
    await slow;
    await backup.destroy();
  }
  t.log(`SIGKILL of the primary to backup resumed, ms: ${delays.map(delay => delay.toFixed(1)).join(' ')}`);
  t.true((delays.sort((a, b) => a - b)[1] as number) < 50);
});
