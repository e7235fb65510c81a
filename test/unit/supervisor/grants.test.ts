import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { RequestRing as GuestRing } from '../../../guest-agent/request-ring.js';
import * as wire from '../../../guest-agent/wire/control-page.js';
import { HoldfastError } from '../../../hypervisor-shim/errors.js';
import { IvshmemChannel } from '../../../hypervisor-shim/guest-channel/ivshmem.js';
import type { BackupCommand, BackupStatus } from '../../../supervisor/api/types.js';
import { GrantListener } from '../../../supervisor/grants/listener.js';
import { Pace } from '../../../supervisor/grants/pace.js';
import { parseRequest, quoteRequest } from '../../../supervisor/grants/request.js';
import type { Backup } from '../../../supervisor/service/backup.js';
import type { Protection } from '../../../supervisor/service/protection.js';
import { Random } from '../../model/random.js';
import { laboratory } from './laboratory.js';

const bytes = (text: string) => Buffer.from(text, 'latin1');

function pages() {
  const page = new ArrayBuffer(wire.PAGE_BYTES);
  const channel = new IvshmemChannel(page);
  return { page, u32: new Uint32Array(page), host: channel.requests, guest: new GuestRing(page), channel };
}

test('requests and answers pass in order; the same is given until it has its answer', t => {
  const { host, guest } = pages();
  t.is(host.next(), undefined);
  for (let round = 0; round < 3; round++) {
    const ids = Array.from({ length: wire.ring.entries }, (_, i) => guest.ask(`request ${round} ${i}`));
    t.true(guest.isFull);
    for (const [i, id] of ids.entries()) {
      t.is(guest.answer(id), undefined);
      t.deepEqual(host.next(), host.next());
      t.like(host.next(), { id, skipped: 0 });
      t.is(Buffer.from(host.next()!.bytes).toString(), `request ${round} ${i}`);
      host.answer(`answer ${i}\n\u001b[2J\u00e9`);
      t.is(guest.answer(id), `answer ${i}??[2J?`);
    }
    t.false(guest.isFull);
  }
  t.is(host.next(), undefined);
});

test('numbers wrap, long texts are cut off, a successor goes on where its predecessor was', t => {
  const { host, guest, u32, page } = pages();
  u32[wire.guest.requested.offset / 4] = 0xffffffff;
  u32[wire.host.answered.offset / 4] = 0xffffffff;
  const id = guest.ask('x'.repeat(1000));
  t.is(id, 0);
  t.is(host.next()!.bytes.length, wire.ring.textBytes);
  const successor = new IvshmemChannel(page).requests;
  t.is(successor.next()!.id, 0);
  successor.answer('y'.repeat(1000));
  t.is(guest.answer(0), 'y'.repeat(wire.ring.textBytes));
  t.is(guest.answer(guest.ask('more')), undefined);
  t.is(host.next()!.id, 1);
});

test('what a guest writes over before it is read is counted; nonsense for a length or a number reads nothing else', t => {
  const { host, u32 } = pages();
  u32[wire.guest.requested.offset / 4] = 10;
  u32.fill(0xffffffff, wire.ring.requests / 4, (wire.ring.requests + 4 * wire.ring.entryBytes) / 4);
  t.like(host.next(), { id: 7, skipped: 6 });
  t.is(host.next()!.bytes.length, wire.ring.textBytes);
  u32[wire.guest.requested.offset / 4] = 3; // back in time
  t.is(host.next()!.bytes.length, wire.ring.textBytes);
});

test('only the six requests are requests', t => {
  for (const operation of wire.BACKUP_OPERATIONS) {
    const plain = parseRequest(bytes(`backup ${operation}`));
    const withAddress = parseRequest(bytes(`backup ${operation} 192.168.77.9/24`));
    if (operation === 'address') t.deepEqual([plain, withAddress?.address], [undefined, '192.168.77.9/24']);
    else t.deepEqual([plain, withAddress], [{ operation, address: undefined }, undefined]);
  }
  const none = [
    ...[
      '',
      'backup',
      'backup ',
      ' backup boot',
      'backup boot ',
      'backup boot\n',
      'backup  boot',
      'Backup boot',
    ],
    ...['backup boot\0', 'backup boot;reboot', 'backup $(boot)', 'backup constructor', 'backup __proto__'],
    ...['backup address', 'backup address 1.2.3.4', 'backup address 1.2.3.4/24;x', 'backup address ::1/64'],
  ];
  for (const text of none) t.is(parseRequest(bytes(text)), undefined, JSON.stringify(text));
  t.is(quoteRequest(bytes('a\n\u001b"')), '"a??\\""');
});

test('random bytes, and requests with some of theirs changed, are a request of the six or none', t => {
  const random = new Random(5);
  const valid = [...wire.BACKUP_OPERATIONS.map(o => `backup ${o}`), 'backup address 192.168.77.9/24'];
  let accepted = 0;
  for (let i = 0; i < 200_000; i++) {
    const mutate = i % 2 === 0;
    const input = mutate
      ? bytes(valid[random.int(valid.length)]!)
      : Buffer.alloc(random.int(wire.ring.textBytes + 1));
    for (let n = mutate ? random.int(3) : input.length; n > 0; n--) {
      input[mutate ? random.int(input.length) : n - 1] = random.int(256);
    }
    const request = parseRequest(input);
    if (!request) continue;
    accepted++;
    const said = ['backup', request.operation, request.address].filter(word => word !== undefined).join(' ');
    t.is(said, input.toString('latin1'));
    t.true(wire.BACKUP_OPERATIONS.includes(request.operation));
  }
  t.true(accepted > 10_000, `${accepted}`);
});

const STATUS: BackupStatus = {
  ...{ service: 'web', phase: 'protected', guest: 'web-b', state: 'suspended', awake: false },
  managementAddress: '192.168.77.3/24',
};

/** A listener over two guests' pages and operations that only note what they were told. */
function listening() {
  const [primary, backup] = [pages(), pages()];
  const guests = { primary: { name: 'web-a', ...primary }, backup: { name: 'web-b', ...backup } };
  const said: { type: string; data: Record<string, unknown> }[] = [];
  const commands: BackupCommand[] = [];
  const p = {
    primary: guests.primary,
    fault: undefined as unknown,
    grants: new Set<string>(),
    guests: () => [{ guest: guests.primary }, { guest: guests.backup }],
    say: (type: string, _message: string, data: Record<string, unknown>) => void said.push({ type, data }),
  };
  const operations = {
    command: async (command: BackupCommand) => {
      commands.push(command);
      if (command.operation === 'migrate') throw new HoldfastError('HF_MIGRATE_STORAGE', 'handed over', '');
      if (command.operation === 'boot') throw new TypeError('/a/path/of/the/host');
      return STATUS;
    },
  };
  const listener = new GrantListener(p as unknown as Protection, operations as unknown as Backup);
  let at = 0;
  /** The listener's next look that nothing delays. */
  const look = async () => {
    at += 3_600_000;
    listener.look(at);
    await turn();
  };
  return { p, guests, said, commands, listener, look };
}

test('a guest without a grant is refused, with an event; one that has it is heard, as long as it has it', async t => {
  const { p, guests, said, commands, look } = listening();
  const { guest } = guests.primary;
  const ask = async (text: string) => {
    const id = guest.ask(text);
    await look();
    return guest.answer(id);
  };
  t.is(await ask('backup wake'), 'no it has no grant for that');
  t.deepEqual(said, [
    {
      type: 'grant.refused',
      data: { guest: 'web-a', reason: 'not-granted', asked: '"backup wake"', skipped: 0 },
    },
  ]);
  p.grants.add('wake').add('migrate').add('boot').add('address');
  t.is(await ask('backup wake'), 'ok web-b is suspended, at 192.168.77.3/24; the service is protected');
  t.is(await ask('backup status'), 'no it has no grant for that');
  t.is(await ask('backup migrate'), 'no HF_MIGRATE_STORAGE: handed over');
  t.is(await ask('backup boot'), 'no HF_INTERNAL: it failed', 'and nothing of the host');
  await ask('backup address 192.168.77.9/24');
  t.deepEqual(
    commands.map(({ operation, address }) => [operation, address]),
    [
      ['wake', undefined],
      ['migrate', undefined],
      ['boot', undefined],
      ['address', '192.168.77.9/24'],
    ],
  );
  p.grants.delete('wake');
  t.is(await ask('backup wake'), 'no it has no grant for that');
  t.is(await ask('rm -rf /'), 'no it is no request');
  p.grants.add('wake');
  p.fault = {};
  t.is(await ask('backup wake'), 'no only the active guest may command the backup');
  p.fault = undefined;
  const id = guests.backup.guest.ask('backup wake');
  await look();
  t.is(guests.backup.guest.answer(id), 'no only the active guest may command the backup');
  t.is(commands.length, 4);
  t.is(said.filter(({ type }) => type === 'grant.refused').length, 6);
});

test('a guest that goes on to ask what it may not is listened to less and less', async t => {
  const { guests, said, listener } = listening();
  for (let at = 0; at < 3_600_000; at += 100) {
    if (!guests.primary.guest.isFull) guests.primary.guest.ask('backup boot');
    listener.look(at);
  }
  t.true(said.length > 55 && said.length < 70, `${said.length} events in an hour`);
  const pace = new Pace();
  pace.refused(0);
  t.deepEqual([pace.allows(999), pace.allows(1000)], [false, true]);
  pace.refused(1000);
  pace.served(3000);
  pace.refused(4000);
  t.true(pace.allows(5000), 'what is served makes up for refusals before');
});

test('a guest with a grant is not told of for ever either', async t => {
  const { p, guests, said, commands, listener } = listening();
  p.grants.add('wake').add('status');
  for (let at = 0; at < 600_000; at += 100) {
    if (!guests.primary.guest.isFull) guests.primary.guest.ask('backup wake');
    listener.look(at);
    await turn();
  }
  t.true(commands.length > 200 && commands.length < 400, `${commands.length} in ten minutes`);
  const look = async (at: number) => {
    listener.look(at);
    await turn();
  };
  for (let i = 0; i < 10; i++) await look(1e9 + i * 10_000);
  const [told, commanded] = [said.length, commands.length];
  for (let i = 0; i < 10; i++) {
    guests.primary.guest.ask('backup status');
    await look(2e9 + i * 1000);
  }
  t.deepEqual([said.length - told, commands.length - commanded], [0, 10], 'a question is no event');
});

test('one request of a guest at a time, however long it takes', async t => {
  const { p, guests, commands, listener } = listening();
  p.grants.add('wake');
  guests.primary.guest.ask('backup wake');
  guests.primary.guest.ask('backup wake');
  for (let at = 0; at < 10; at++) listener.look(at * 1000);
  t.is(commands.length, 1);
  await turn();
  listener.look(20_000);
  t.is(commands.length, 2);
});

test('a page full of random bytes crashes nothing, and commands nothing that was not granted', async t => {
  const { p, guests, commands, said, look } = listening();
  p.grants.add('status');
  const random = new Random(7);
  const { page, u32 } = guests.primary;
  const all = new Uint8Array(page, 0, wire.rings.offset);
  const [requested, answered] = [wire.guest.requested, wire.host.answered].map(({ offset }) => offset / 4);
  for (let round = 0; round < 3000; round++) {
    for (let i = 0; i < 200; i++) all[random.int(all.length)] = random.int(256);
    const text = random.int(2) === 0 ? 'backup status' : 'backup boot';
    const at = wire.ring.requests + random.int(4) * wire.ring.entryBytes;
    u32[at / 4] = text.length + (random.int(4) === 0 ? random.int(2 ** 31) : 0);
    all.set(bytes(text), at + 4);
    u32[requested!] = (u32[answered!]! + random.int(6)) >>> 0;
    await t.notThrowsAsync(look);
  }
  t.true(commands.length > 100, `${commands.length}`);
  t.true(commands.every(({ operation }) => operation === 'status'));
  t.true(said.filter(({ type }) => type === 'grant.refused').length > 500);
});

test('holdfast backup and grant', async t => {
  const { run, config } = laboratory(t);
  await run('up', config);
  const wake = await run('backup', 'wake', 'web');
  t.is(wake.code, 0, wake.stderr);
  t.regex(
    wake.stdout,
    /^SERVICE +PHASE .*\nweb +protected +web-b +awake +700 +200 +192\.168\.77\.3\/24 +-\n$/,
  );
  const address = await run('backup', 'address', 'web', '192.168.77.9/24', '--json');
  t.is(JSON.parse(address.stdout).furtherAddress, '192.168.77.9/24');
  const migrate = await run('backup', 'migrate', 'web', '--json');
  t.deepEqual([migrate.code, JSON.parse(migrate.stderr).code], [1, 'HF_MIGRATE_STORAGE']);
  t.regex((await run('grant', 'add', 'web', 'wake', 'suspend')).stdout, /^web +wake suspend$/m);
  t.regex((await run('grant', 'remove', 'web', 'wake')).stdout, /^web +suspend$/m);
  t.is(JSON.parse((await run('grant', 'add', 'web', '--json')).stdout).operations.length, 6);
  t.regex((await run('grant', 'remove', 'web')).stdout, /^web +nothing$/m);
  t.is(JSON.parse((await run('grant', 'list', '--json')).stdout)[0].service, 'web');
  t.is((await run('grant', 'add', 'web', 'sell')).code, 2);
  t.is((await run('backup', 'sell', 'web')).code, 2);
  t.is((await run('backup', 'boot', '../x')).code, 1);
});
