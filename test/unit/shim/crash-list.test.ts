/** What a guest's exit watch writes to the control page, read by a host that believes nothing of it. */
import test from 'ava';
import * as wire from '../../../guest-agent/wire/control-page.js';
import { CRASH_KIND, Crash } from '../../../guest-agent/wire/crash.generated.js';
import { describeStatus } from '../../../hypervisor-shim/guest-channel/crash-list.js';
import { IvshmemChannel } from '../../../hypervisor-shim/guest-channel/ivshmem.js';

const { offset, count, entryBytes } = wire.crashes;

function page() {
  const buffer = new ArrayBuffer(wire.PAGE_BYTES);
  const channel = new IvshmemChannel(buffer);
  const view = new DataView(buffer);
  let head = 0n;
  const entry = (n: bigint) => new Crash(view, offset + Number(n % BigInt(count)) * entryBytes);
  return {
    ...{ buffer, channel },
    setHead: (n: bigint) => view.setBigUint64(wire.guest.crashHead.offset, n, true),
    write(fields: Partial<Crash>, address: number[] = []) {
      const e = entry(head);
      e.bytes.fill(0);
      Object.assign(e, fields);
      e.raddr.set(address);
      view.setBigUint64(wire.guest.crashHead.offset, ++head, true);
    },
  };
}

const connection = {
  kind: CRASH_KIND.CRASH_CONNECTION,
  family: 4,
  rport: 0x1234,
  lport: 0x5000,
  rcv_nxt: 7,
  pid: 3,
};

test('Crash list: the layout fits the page', t => {
  t.is(Crash.BYTES, entryBytes);
  t.true(offset + count * entryBytes <= wire.PAGE_BYTES);
  t.true(wire.rings.offset + wire.rings.bytes <= offset);
});

test('Crash list: entries are taken once, by whichever supervisor', t => {
  const { buffer, channel, write } = page();
  t.deepEqual(channel.takeCrashes(), { crashes: [], overflow: false });
  write(connection, [0, 0, 0, 0x0100000a]);
  write({ kind: CRASH_KIND.CRASH_SERVICE, service: 1, pid: 9, status: 11 });
  write({ kind: CRASH_KIND.CRASH_SERVICE, pid: 9, status: 15, flags: 1 });
  const { crashes, overflow } = channel.takeCrashes();
  t.false(overflow);
  t.like(crashes[0], {
    kind: 'connection',
    family: 4,
    remotePort: 0x1234,
    localPort: 0x5000,
    rcvNxt: 7,
    pid: 3,
  });
  t.deepEqual(crashes.slice(1), [
    { kind: 'service', service: 1, pid: 9, status: 11 },
    { kind: 'told-to-stop', service: 0, pid: 9, status: 15 },
  ]);
  t.deepEqual(channel.takeCrashes().crashes, []);
  write(connection);
  t.is(new IvshmemChannel(buffer).takeCrashes().crashes.length, 1, 'its successor goes on where it was');
});

test('Crash list: what makes no sense is left out', t => {
  const { channel, write } = page();
  write({ ...connection, kind: 0 });
  write({ ...connection, kind: 99 });
  write({ ...connection, family: 5 });
  write(connection, [1, 0, 0, 2]);
  t.deepEqual(channel.takeCrashes(), { crashes: [], overflow: false });
});

test('Crash list: it wraps; more than it holds is an overflow, and so is any other head', t => {
  const { channel, write, setHead } = page();
  for (let i = 0; i < count - 1; i++) write(connection);
  t.is(channel.takeCrashes().crashes.length, count - 1);
  for (let i = 0; i < count; i++) write({ ...connection, rport: i });
  const { crashes } = channel.takeCrashes();
  t.is(crashes.length, count);
  t.like(crashes.at(-1), { remotePort: count - 1 });
  for (let i = 0; i <= count; i++) write(connection);
  t.deepEqual(channel.takeCrashes(), { crashes: [], overflow: true });
  for (const head of [0n, 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    setHead(head);
    const list = channel.takeCrashes();
    t.true(list.overflow || list.crashes.length <= count, `${head}`);
  }
});

test('Crash list: random bytes never throw', t => {
  const { buffer, channel } = page();
  for (let round = 0; round < 50; round++) {
    for (let at = wire.guest.crashHead.offset; at < buffer.byteLength; at += 65_536) {
      const bytes = new Uint8Array(buffer, at, Math.min(65_536, buffer.byteLength - at));
      crypto.getRandomValues(bytes);
    }
    const tail = new DataView(buffer).getBigUint64(wire.host.crashTail.offset, true);
    new DataView(buffer).setBigUint64(wire.guest.crashHead.offset, tail + BigInt(round * 90), true);
    t.notThrows(() => channel.takeCrashes());
  }
});

test('Crash list: a wait status in words', t => {
  t.is(describeStatus(9), 'signal 9');
  t.is(describeStatus(0x8b), 'signal 11');
  t.is(describeStatus(1 << 8), 'exit status 1');
});
