/** What a service says of itself to the agent, and what of it the host reads. */
import test from 'ava';
import { Notices } from '../../../guest-agent/notices.js';
import { ControlPage } from '../../../guest-agent/page.js';
import * as wire from '../../../guest-agent/wire/control-page.js';
import { IvshmemChannel } from '../../../hypervisor-shim/guest-channel/ivshmem.js';

const MEMBER = 7;
const spec = { name: 'app', command: 'app', ports: [80], watchdogMs: 2000 };

function agent() {
  const buffer = new ArrayBuffer(wire.PAGE_BYTES);
  const channel = new IvshmemChannel(buffer);
  const said = new Map<string, (pid: number, text: string) => void>();
  const addon = {
    hearNotifications: (path: string, heard: (pid: number, text: string) => void) =>
      void said.set(path, heard),
  };
  const notices = new Notices(new ControlPage(buffer), addon);
  const word = (service = 0) => channel.services(wire.services.count)[service]!;
  return { notices, said, word };
}

test('a service that asks for it is told where to give signs of life, and each is counted', t => {
  const { notices, said, word } = agent();
  notices.hear(spec, 3, { has: pid => pid === MEMBER });
  t.deepEqual(notices.begin(3), { NOTIFY_SOCKET: '/run/holdfast/notify.app', WATCHDOG_USEC: '2000000' });
  const say = said.get('/run/holdfast/notify.app')!;
  t.like(word(3), { watchdogMs: 2000, signs: 0n });
  say(MEMBER, 'READY=1\nSTATUS=at work');
  say(MEMBER, 'WATCHDOG=1');
  t.is(word(3).signs, 2n);
  say(MEMBER, 'STATUS=WATCHDOG=1');
  say(MEMBER, 'WATCHDOG=trigger');
  say(MEMBER, '\0\n=\nWATCHDOG_USEC=x');
  t.like(word(3), { watchdogMs: 2000, signs: 2n });
  say(MEMBER, 'WATCHDOG_USEC=5500000');
  t.is(word(3).watchdogMs, 5500);
  notices.begin(3);
  t.like(word(3), { watchdogMs: 2000, signs: 0n }, 'started again, it begins anew');
  t.is(word(2).watchdogMs, undefined);
});

test('what comes from outside the service is not heard', t => {
  const { notices, said, word } = agent();
  notices.hear(spec, 0, { has: pid => pid === MEMBER });
  said.get('/run/holdfast/notify.app')!(8, 'WATCHDOG=1\nWATCHDOG_USEC=1');
  t.like(word(), { watchdogMs: 2000, signs: 0n });
});

test('a service that does not ask, or for which the page has no room, is told nothing', t => {
  const { notices, said } = agent();
  const { watchdogMs: _, ...silent } = spec;
  notices.hear(silent, 0, { has: () => true });
  notices.hear(spec, wire.services.count, { has: () => true });
  t.is(said.size, 0);
  t.is(notices.begin(0), undefined);
  t.is(notices.begin(wire.services.count), undefined);
});

test('the entries of services fit between their neighbours on the page', t => {
  const { offset, count, entryBytes } = wire.services;
  t.true(offset >= wire.ring.requests + wire.ring.entries * wire.ring.entryBytes);
  t.true(offset + count * entryBytes <= wire.rings.offset);
});

test('a time so short that nobody could keep it is read as a second', t => {
  const { notices, said, word } = agent();
  notices.hear(spec, 0, { has: () => true });
  said.get('/run/holdfast/notify.app')!(1, 'WATCHDOG_USEC=0');
  t.is(word().watchdogMs, undefined, 'none');
  said.get('/run/holdfast/notify.app')!(1, 'WATCHDOG_USEC=1');
  t.is(word().watchdogMs, 1000);
  said.get('/run/holdfast/notify.app')!(1, 'WATCHDOG_USEC=9999999999999999');
  t.is(word().watchdogMs, 0xffff_ffff);
});
