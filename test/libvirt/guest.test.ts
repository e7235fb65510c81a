import { execFileSync } from 'node:child_process';
import { existsSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { GuestEvent } from '../../hypervisor-shim/hypervisor.js';
import { LibvirtError } from '../../hypervisor-shim/libvirt/libvirt-error.js';
import { LibvirtHypervisor } from '../../hypervisor-shim/libvirt/libvirt-hypervisor.js';
import { disposeAtExit, settled } from '../lib/at-exit.js';
import { Bench, nextEvent, untilOff } from './support/bench.js';

const bench = new Bench();
const id = process.pid.toString(36);
let hypervisor: LibvirtHypervisor;

test.before(async () => {
  hypervisor = await LibvirtHypervisor.connect({ stateDir: bench.stateDir });
});
test.after.always(async () => {
  await hypervisor?.stop();
  bench.remove();
});

const sinceMs = (event: GuestEvent, from: bigint) => Number(event.atNs - from) / 1e6;

test.serial('a guest starts paused, resumes, suspends, is destroyed and undefined', async t => {
  const name = `hft-life-${id}`;
  const guest = await hypervisor.define(bench.spec(name, 'idle'));
  t.is(await guest.state(), 'shutoff');
  t.deepEqual(await hypervisor.list(), [name]);

  const started = nextEvent(hypervisor, name, 'started');
  await guest.start({ paused: true });
  await started;
  t.is(await guest.state(), 'paused');
  await sleep(300);
  t.is(await guest.vcpuTimeNs(), 0n);
  await t.throwsAsync(hypervisor.define(bench.spec(name, 'idle')), { code: 'HF_GUEST_RUNNING' });

  const resumed = nextEvent(hypervisor, name, 'resumed');
  await guest.resume();
  await resumed;
  await guest.resume();
  await bench.console(name, 'guest-up');
  t.true((await guest.vcpuTimeNs()) > 0n);
  const pid = (await guest.pid())!;
  t.true(existsSync(`/proc/${pid}`));

  // Only the emulator itself can answer that.
  await guest.roundTrip();
  process.kill(pid, 'SIGSTOP');
  let answered = false;
  const answer = guest.roundTrip().then(() => {
    answered = true;
  });
  await sleep(300);
  t.is(await guest.state(), 'running');
  t.false(answered);
  process.kill(pid, 'SIGCONT');
  await answer;

  await guest.suspend();
  await guest.suspend();
  const before = await guest.vcpuTimeNs();
  await sleep(300);
  t.is(await guest.vcpuTimeNs(), before);

  const events: GuestEvent[] = [];
  hypervisor.on('guest', event => events.push(event));
  await guest.destroy();
  await guest.destroy();
  t.is(await guest.state(), 'shutoff');
  t.is(await guest.pid(), undefined);
  await sleep(100);
  t.deepEqual(events, [], 'an end that was asked for is no event');
  hypervisor.removeAllListeners('guest');
  await guest.undefine();
  t.is(await hypervisor.lookup(name), undefined);
});

test.serial('a panic is reported, the guest stays for diagnosis and can be dumped', async t => {
  const name = `hft-panic-${id}`;
  const guest = await hypervisor.define(bench.spec(name, 'panic'));
  const panicked = nextEvent(hypervisor, name, 'panicked');
  await guest.start();
  await bench.console(name, 'guest-up');
  const seen = process.hrtime.bigint();
  const event = await panicked;
  t.log(`panicked ${sinceMs(event, seen).toFixed(1)} ms after its last words were read: ${event.detail}`);
  t.is(await guest.state(), 'crashed');

  const core = join(bench.directory, 'core');
  await guest.dump(core);
  t.true(statSync(core).size > 128 * 2 ** 20);
  const magic = Buffer.alloc(4);
  readSync(openSync(core, 'r'), magic);
  t.is(magic.toString('latin1'), '\x7fELF');

  await guest.destroy();
  await guest.undefine();
});

test.serial('a QEMU that is killed is reported at once, and once', async t => {
  const name = `hft-kill-${id}`;
  const guest = await hypervisor.define(bench.spec(name, 'idle'));
  const delays: number[] = [];
  for (let round = 0; round < 3; round++) {
    await guest.start();
    await bench.console(name, 'guest-up');
    const gone: GuestEvent[] = [];
    const count = (event: GuestEvent) => event.kind === 'gone' && gone.push(event);
    hypervisor.on('guest', count);
    const first = nextEvent(hypervisor, name, 'gone');
    const pid = await guest.pid();
    const killed = process.hrtime.bigint();
    process.kill(pid as number, 'SIGKILL');
    await first;
    delays.push(Number(process.hrtime.bigint() - killed) / 1e6);
    await untilOff(guest);
    await sleep(100);
    hypervisor.off('guest', count);
    t.is(gone.length, 1);
  }
  t.log(`SIGKILL to event, ms: ${delays.map(delay => delay.toFixed(1)).join(' ')}`);
  await guest.undefine();
});

for (const act of ['poweroff', 'reboot']) {
  test.serial(`a ${act} from inside is a shutdown, not a fault`, async t => {
    const name = `hft-${act}-${id}`;
    const guest = await hypervisor.define(bench.spec(name, act));
    const kinds: string[] = [];
    const note = (event: GuestEvent) => kinds.push(event.kind);
    hypervisor.on('guest', note);
    const shutdown = nextEvent(hypervisor, name, 'shutdown');
    await guest.start();
    await shutdown;
    await untilOff(guest);
    await sleep(100);
    hypervisor.off('guest', note);
    t.deepEqual(
      kinds.filter(kind => ['gone', 'shutdown', 'panicked'].includes(kind)),
      ['shutdown'],
    );
    await guest.undefine();
  });
}

test.serial('taps, control page and NIC order', async t => {
  const name = `hft-nic-${id}`;
  const taps = [`hfta${id}`, `hftb${id}`];
  for (const tap of taps) execFileSync('ip', ['tuntap', 'add', 'dev', tap, 'mode', 'tap', 'vnet_hdr']);
  const shm = `hft-page-${id}`;
  const disposeNow = () => {
    for (const tap of taps) execFileSync('ip', ['tuntap', 'del', 'dev', tap, 'mode', 'tap']);
    execFileSync('rm', ['-f', `/dev/shm/${shm}`]);
  };
  const made = { dispose: async () => {}, disposeNow };
  disposeAtExit(made);
  t.teardown(() => {
    settled(made);
    disposeNow();
  });
  const nics = taps.map((tap, index) => ({ tap, mac: `52:54:00:12:34:0${index + 1}` }));
  const controlPage = { shm, bytes: 1 << 20 };
  const guest = await hypervisor.define(bench.spec(name, 'idle', { nics, controlPage }));
  await guest.start();
  const said = await bench.console(name, 'guest-up');
  t.regex(said, /interfaces: 52:54:00:12:34:01 52:54:00:12:34:02/);
  t.is(statSync(`/dev/shm/${shm}`).size, 1 << 20);
  await guest.destroy();
  for (const tap of taps) t.true(existsSync(`/sys/class/net/${tap}`), 'the taps are ours and stay');
  await guest.undefine();
});

test.serial("errors carry libvirt's code, domain and text", async t => {
  const missing = await t.throwsAsync(hypervisor.call('state', 'no-such-guest'), {
    instanceOf: LibvirtError,
  });
  t.is(missing?.code, 'HF_LIBVIRT');
  t.is(missing?.libvirtCode, 42);
  t.regex(missing?.libvirtText ?? '', /no-such-guest/);

  const bad = await t.throwsAsync(hypervisor.call('define', 'bad', '<domain type="qemu"><name>'), {
    instanceOf: LibvirtError,
  });
  t.is(bad?.libvirtCode, 35);
  t.regex(bad?.libvirtText ?? '', /domain_definition/);

  const noTap = bench.spec(`hft-bad-${id}`, 'idle', { nics: [{ tap: 'hft-none', mac: 'not-a-mac' }] });
  const mac = await t.throwsAsync(hypervisor.define(noTap), { instanceOf: LibvirtError });
  t.regex(mac?.message ?? '', /not-a-mac/);
});
