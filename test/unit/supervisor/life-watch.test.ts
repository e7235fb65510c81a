/** Services that give no more signs of life, or accept nothing, in a guest that is well; with a clock of our own. */
import test from 'ava';
import { ControlPage } from '../../../guest-agent/page.js';
import * as wire from '../../../guest-agent/wire/control-page.js';
import { IvshmemChannel } from '../../../hypervisor-shim/guest-channel/ivshmem.js';
import { type LifeCharge, LifeWatch } from '../../../supervisor/recovery/life-watch.js';
import { StandStill } from '../../../supervisor/recovery/stand-still.js';

/** A guest whose agent beats as time passes, and whose services do what the test says. */
function bed(detect: LifeCharge['config']['detect'] = {}) {
  const failed: string[] = [];
  const said: string[] = [];
  const boot = (name: string) => {
    const buffer = new ArrayBuffer(wire.PAGE_BYTES);
    const channel = new IvshmemChannel(buffer);
    const page = new ControlPage(buffer);
    const words = new Uint32Array(buffer);
    words[wire.guest.magic.offset / 4] = wire.GUEST_MAGIC;
    words[wire.guest.version.offset / 4] = wire.PAGE_VERSION;
    return { name, state: 'active', pid: undefined, channel, page, report: () => channel.read() };
  };
  const charge = {
    primary: boot('web-0'),
    fault: undefined as LifeCharge['fault'],
    crashed: undefined as LifeCharge['crashed'],
    replaying: false,
    config: { detect },
    primaryFailed(cause: string, detail: string) {
      failed.push(`${cause}: ${detail}`);
      charge.fault = {} as LifeCharge['fault'];
    },
    say: (type: string, message: string) => void said.push(`${type}: ${message}`),
  };
  const watch = new LifeWatch(charge, [{ name: 'nginx' }, { name: 'app' }]);
  let at = 1000;
  /** `ms` pass, of which the agent runs in `share`; `each` is called every 50 ms. */
  const pass = (ms: number, each: () => void = () => {}, share = 1) => {
    for (const end = at + ms; at < end; ) {
      at += 50;
      if ((at / 50) % (1 / share) === 0) charge.primary.page.beat();
      each();
      watch.look(at);
    }
  };
  const service = (index: number) => charge.primary.page.service(index)!;
  return { charge, failed, said, pass, service, boot };
}

test('a service that gave signs of life and gives no more is wedged, once its time is over', t => {
  const { failed, said, pass, service } = bed();
  service(0).watchdogMs = service(1).watchdogMs = 2000;
  pass(10_000);
  t.deepEqual(failed, [], 'one that never gave any need not');
  for (let i = 0; i < 20; i++) {
    service(1).sign();
    pass(1900);
  }
  t.deepEqual(failed, []);
  pass(200);
  t.deepEqual(failed, [
    'service-wedged: app in web-0 has given no sign of life for 2000 ms, and declared 2000',
  ]);
  t.deepEqual(said, ['watchdog.begun: app in web-0 gives signs of life, and is to give one in each 2000 ms']);
});

test('the time of a guest whose agent does not run, or runs at times only, is not that of the service', t => {
  const { failed, pass, service } = bed();
  service(0).watchdogMs = 2000;
  service(0).sign();
  pass(1000);
  pass(60_000, undefined, 0);
  t.deepEqual(failed, [], 'paused, or the agent starts again');
  pass(1600, undefined, 0.5);
  t.deepEqual(failed, []);
  pass(500);
  t.is(failed.length, 1);
});

test('nothing is judged during a recovery, and what follows it begins anew', t => {
  const { charge, failed, pass, service } = bed();
  service(0).watchdogMs = 2000;
  service(0).sign();
  pass(1900);
  charge.replaying = true;
  pass(5000);
  charge.replaying = false;
  pass(1900);
  charge.crashed = {} as LifeCharge['crashed'];
  pass(5000);
  charge.crashed = undefined;
  pass(1900);
  t.deepEqual(failed, []);
  pass(200);
  t.is(failed.length, 1);
});

test('a service that is started again need not give signs of life until its first', t => {
  const { failed, pass, service } = bed();
  service(0).watchdogMs = 2000;
  service(0).sign();
  pass(1000);
  service(0).begin();
  pass(10_000);
  t.deepEqual(failed, []);
  service(0).sign();
  pass(2100);
  t.is(failed.length, 1);
});

test("the guest that takes over is judged by its own services' signs", t => {
  const { charge, failed, said, pass, service, boot } = bed();
  service(0).watchdogMs = 2000;
  service(0).sign();
  pass(1000);
  charge.primary = boot('web-1');
  service(0).watchdogMs = 2000;
  service(0).sign();
  pass(1900);
  t.deepEqual(failed, []);
  pass(200);
  t.regex(failed[0]!, /^service-wedged: nginx in web-1 /);
  t.is(said.length, 2, 'told of once for each guest');
});

test('connections that wait, none of which is accepted, for as long as the operator says', t => {
  const { failed, pass, service } = bed({ acceptQueueMs: 5000 });
  pass(3000, () => service(1).queue(0, true));
  pass(20_000, () => service(1).queue(100, true));
  t.deepEqual(failed, [], 'a server that is busy');
  pass(4900, () => service(1).queue(1, false));
  service(1).queue(0, true);
  pass(50);
  pass(4900, () => service(1).queue(2, false));
  t.deepEqual(failed, []);
  pass(200, () => service(1).queue(3, false));
  t.deepEqual(failed, ['service-wedged: app in web-0 has accepted none of 3 connections for 5000 ms']);
});

test('connections that wait are no fault where nobody asked for that', t => {
  const { failed, pass, service } = bed();
  pass(60_000, () => service(0).queue(9, false));
  t.deepEqual(failed, []);
});

test('a guest may write whatever it likes: it is its word about itself, told of once', t => {
  const { failed, said, pass, service } = bed({ acceptQueueMs: 3000 });
  let n = 0;
  pass(20_000, () => {
    service(0).watchdogMs = (n * 0x9e3779b1) >>> 0;
    if (n++ % 3 === 0) service(0).begin();
    else service(0).sign();
    service(0).queue(n & 1 ? 0xffff_ffff : 0, n % 5 === 0);
  });
  t.deepEqual(failed, []);
  t.is(said.length, 1);
});

test('a service that was stopped on purpose is told of, and not judged', t => {
  const { charge, failed, said, pass, service, boot } = bed({ acceptQueueMs: 3000 });
  service(0).watchdogMs = service(1).watchdogMs = 2000;
  service(0).sign();
  service(1).sign();
  pass(1000);
  service(0).stopped = true;
  service(0).queue(3, false);
  pass(20_000, () => service(1).sign());
  service(1).begin();
  service(0).begin();
  service(0).stopped = false;
  service(0).queue(0, true);
  pass(20_000);
  t.deepEqual(failed, []);
  t.deepEqual(said.slice(2), [
    'application.stopped: nginx in web-0 is stopped on purpose, from inside',
    'application.started: nginx in web-0 is started again',
  ]);
  service(1).stopped = true;
  pass(10_000);
  charge.primary = boot('web-1');
  pass(10_000);
  t.deepEqual(said.slice(4), [
    'application.stopped: app in web-0 is stopped on purpose, from inside',
    'application.started: app runs in web-1: it was stopped in web-0 only',
  ]);
});

test('a guest that stops and starts a service all the time is told of now and then', t => {
  const { said, pass, service } = bed();
  let n = 0;
  pass(60_000, () => {
    service(0).stopped = n++ % 2 === 0;
  });
  t.true(said.length >= 2 && said.length <= 12, `${said.length}`);
});

test('time that the machine waited for a CPU is not counted; counters may wrap', t => {
  const still = new StandStill(5n, { at: 0, waitedMs: 0, rounds: 2n ** 64n - 10n }, 50);
  t.is(still.look(5n, { at: 1000, waitedMs: 400, rounds: 10n }), 600);
  t.is(still.look(5n, { at: 2000, waitedMs: 400, rounds: 10n }), 1000, '20 rounds of 50 ms');
  t.is(still.look(4n, { at: 3000, waitedMs: 500, rounds: 90n }), 0);
});
