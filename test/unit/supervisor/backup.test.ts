import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import * as wire from '../../../guest-agent/wire/control-page.js';
import { IvshmemChannel } from '../../../hypervisor-shim/guest-channel/ivshmem.js';
import type { Guest } from '../../../hypervisor-shim/hypervisor.js';
import type { BackupCommand } from '../../../supervisor/api/types.js';
import { Backup } from '../../../supervisor/service/backup.js';
import { GuestVm } from '../../../supervisor/service/guest.js';
import type { Protection } from '../../../supervisor/service/protection.js';
import { errorOf } from './helpers.js';

/** A suspended guest over a machine that notes what it is told, and a page whose guest side a test plays. */
function suspended(name = 'web-b') {
  const page = new ArrayBuffer(wire.PAGE_BYTES);
  const u32 = new Uint32Array(page);
  const told: string[] = [];
  const machine = {
    resume: async () => void told.push('resume'),
    suspend: async () => void told.push('suspend'),
    vcpuTimeNs: async () => 0n,
  } as unknown as Guest;
  const vm = new GuestVm(name, 1, 0, machine, new IvshmemChannel(page), '/none', '/none');
  vm.state = 'suspended';
  const write = (field: wire.Field, value: number) => {
    u32[field.offset / 4] = value;
  };
  const read = (field: wire.Field) => u32[field.offset / 4]!;
  write(wire.guest.version, wire.PAGE_VERSION);
  write(wire.guest.magic, wire.GUEST_MAGIC);
  return { vm, told, write, read, page };
}

test('connections wait until the agent has set its clock; not for ever, and not for a guest that is lost', async t => {
  const { vm, write } = suspended();
  await vm.wake(7);
  let told: boolean | undefined;
  const waiting = vm.isTold(7).then(result => {
    told = result;
  });
  await sleep(30);
  t.is(told, undefined);
  write(wire.guest.epochEcho, 7);
  await waiting;
  t.is(told, true);
  const began = performance.now();
  t.false(await vm.isTold(8));
  t.true(performance.now() - began > 400);
  vm.failure = 'gone';
  t.false(await vm.isTold(8));
});

test('a takeover while the backup is being woken resumes it all the same; the time is written first', async t => {
  const { vm, told, read, page } = suspended();
  await vm.rouse();
  t.true(vm.isAwake);
  t.is(read(wire.host.epoch), 0, 'it is not active');
  const time = Number(new BigUint64Array(page)[wire.host.wallClockNs.offset / 8]! / 1_000_000n);
  t.true(Math.abs(Date.now() - time) < 5000);
  await vm.wake(3);
  t.deepEqual(told, ['resume', 'resume']);
  t.false(vm.isAwake);
  t.is(read(wire.host.epoch), 3);
});

function backupOf(changes: object = {}) {
  const guest = suspended();
  const replaced: string[] = [];
  const p = {
    phase: 'protected',
    fault: undefined,
    replaying: false,
    stopped: new AbortController().signal,
    config: { name: 'web', storage: { mode: 'none' }, management: { subnet: '192.168.77.0/24' } },
    maker: { managementAddress: () => '192.168.77.3/24' },
    primary: {},
    backup: guest.vm as GuestVm | undefined,
    say: () => {},
    // As the upkeep does.
    wake: () => {
      if (p.backup?.state === 'ready' && !p.backup.isAwake) p.backup.state = 'suspended';
    },
    replaceBackup: (old: GuestVm) => {
      replaced.push(old.name);
      p.backup = undefined;
      setTimeout(() => {
        p.backup = suspended('web-c').vm;
      }, 60);
    },
    ...changes,
  };
  const backup = new Backup(p as unknown as Protection);
  return { p, guest, replaced, command: (command: BackupCommand) => backup.command(command) };
}

test('wake and suspend; each a second time is no error', async t => {
  const { guest, command } = backupOf();
  for (let i = 0; i < 2; i++) t.like(await command({ operation: 'wake' }), { awake: true, state: 'ready' });
  t.deepEqual(guest.told, ['resume']);
  for (let i = 0; i < 2; i++)
    t.like(await command({ operation: 'suspend' }), { awake: false, state: 'suspended' });
  t.like(await command({ operation: 'status' }), { guest: 'web-b', managementAddress: '192.168.77.3/24' });
});

test('boot waits for the one that there is, or for another one if that is wanted', async t => {
  const { replaced, command } = backupOf();
  t.is((await command({ operation: 'boot' })).guest, 'web-b');
  t.deepEqual(replaced, []);
  t.is((await command({ operation: 'boot', fresh: true })).guest, 'web-c');
  t.deepEqual(replaced, ['web-b']);
});

test('an address is checked, and taken by a guest that is awake', async t => {
  const { guest, command } = backupOf();
  const operation = 'address';
  for (const address of [
    ...[
      undefined,
      '',
      '192.168.77.9',
      '192.168.78.9/24',
      '192.168.77.9/25',
      '192.168.77.0/24',
      '192.168.77.255/24',
    ],
    ...['192.168.77.1/24', '192.168.77.2/24', '192.168.77.5/24', '1.2.3.4;reboot/24', '192.168.77.9/24 x'],
  ])
    t.is((await errorOf(() => command({ operation, address }))).code, 'HF_BACKUP_ADDRESS', address);
  const address = '192.168.77.9/24';
  t.is((await errorOf(() => command({ operation, address }))).code, 'HF_BACKUP_SUSPENDED');
  await command({ operation: 'wake' });
  const done = command({ operation, address });
  await sleep(60);
  t.deepEqual([guest.read(wire.host.address), guest.read(wire.host.prefix)], [0xc0a84d09, 24]);
  guest.write(wire.guest.addressEcho, guest.read(wire.host.addressId));
  t.is((await done).furtherAddress, address);
  guest.write(wire.guest.addressFailed, 1);
  const failed = errorOf(() => command({ operation, address: '192.168.77.10/24' }));
  await sleep(60);
  guest.write(wire.guest.addressEcho, guest.read(wire.host.addressId));
  t.is((await failed).code, 'HF_BACKUP_FAILED');
});

test('migrate is begun, not waited for; not twice, and not with a disk that only one can have', async t => {
  const { p, command } = backupOf({ primary: { name: 'web-a' } });
  await command({ operation: 'migrate' });
  t.like((p as unknown as Protection).migration, { from: 'web-a', to: 'web-b', policy: 'replay', moved: 0 });
  t.is((await errorOf(() => command({ operation: 'migrate' }))).code, 'HF_SERVICE_BUSY');
  const config = { name: 'web', storage: { mode: 'handed-over' } };
  const other = backupOf({ config });
  t.is((await errorOf(() => other.command({ operation: 'migrate' }))).code, 'HF_MIGRATE_STORAGE');
});

test('nothing is changed in the midst of a recovery, or without a backup', async t => {
  for (const changes of [
    { fault: {} },
    { phase: 'recovering' },
    { phase: 'starting' },
    { replaying: true },
  ]) {
    const { command, guest } = backupOf(changes);
    for (const operation of ['boot', 'suspend', 'wake'] as const)
      t.is((await errorOf(() => command({ operation }))).code, 'HF_SERVICE_BUSY');
    t.deepEqual(guest.told, []);
    t.is((await command({ operation: 'status' })).guest, 'web-b');
  }
  const { command } = backupOf({ backup: undefined, booting: undefined });
  t.is((await errorOf(() => command({ operation: 'wake' }))).code, 'HF_BACKUP_MISSING');
  t.is((await command({ operation: 'status' })).guest, undefined);
  t.is((await errorOf(() => command({ operation: 'migrate' }))).code, 'HF_SERVICE_BUSY');
});
