/** A service is stopped on purpose, inside its guest, and started again. */
import test from 'ava';
import { ControlPage } from '../../../guest-agent/page.js';
import { PlannedStops } from '../../../guest-agent/planned-stops.js';
import * as wire from '../../../guest-agent/wire/control-page.js';
import { IvshmemChannel } from '../../../hypervisor-shim/guest-channel/ivshmem.js';

/** Two services, of which the second has a port; what their starts and stops do is the test's. */
function bed() {
  const buffer = new ArrayBuffer(wire.PAGE_BYTES);
  const channel = new IvshmemChannel(buffer);
  const done: string[] = [];
  const ports = new Set<number>();
  const state = { calm: true, ends: false, stopping: Promise.resolve() };
  const make = (name: string, own: number[]) => ({
    spec: { name, command: name, ports: own },
    pid: 1,
    isStopped: false,
    async start() {
      done.push(`start ${name}`);
      this.pid = state.ends ? 0 : 2;
      if (!state.ends) for (const port of own) ports.add(port);
    },
    stop() {
      done.push(`stop ${name}`);
      this.isStopped = true;
      this.pid = 0;
      return state.stopping;
    },
    isBack() {
      done.push(`${name} is back`);
      this.isStopped = false;
    },
  });
  const services = [make('shell', []), make('web', [80])];
  const stops = new PlannedStops(
    new ControlPage(buffer),
    services,
    () => state.calm,
    () => {},
    () => ports,
  );
  channel.activate(1, 0n);
  const told = () => channel.services(2).map(({ isStopped }) => isStopped);
  return { channel, services, stops, state, done, told };
}

test('it is stopped until it is started again and listens, and the host is told', async t => {
  const { stops, done, told } = bed();
  t.is(await stops.ask('start web'), 'ok web is not stopped');
  t.regex((await stops.ask('stop web'))!, /^ok web is stopped; /);
  t.deepEqual(told(), [false, true]);
  t.is(await stops.ask('stop web'), 'ok web is stopped already');
  t.is(await stops.ask('start web'), 'ok web is started');
  t.deepEqual(told(), [false, false]);
  t.deepEqual(done, ['stop web', 'start web', 'web is back']);
});

test('the host is told before the service has ended', async t => {
  const { stops, state, told } = bed();
  let end = () => {};
  state.stopping = new Promise(resolve => {
    end = resolve;
  });
  const stopped = stops.ask('stop web');
  t.deepEqual(told(), [false, true]);
  t.regex((await stops.ask('stop shell'))!, /^no shell: another one is being/);
  end();
  t.regex((await stopped)!, /^ok /);
});

test('a service that ends as it is started stays stopped: that is no fault, either', async t => {
  const { stops, state, services, told } = bed();
  await stops.ask('stop web');
  state.ends = true;
  t.regex((await stops.ask('start web'))!, /^no web: it ended at once, and stays stopped/);
  t.true(services[1]!.isStopped);
  t.deepEqual(told(), [false, true]);
  state.ends = false;
  t.is(await stops.ask('start web'), 'ok web is started');
});

test('not in a backup, nor while a service does not listen, nor what there is not', async t => {
  const { channel, stops, state, done, told } = bed();
  t.is(stops.ask('backup status'), undefined);
  t.is(stops.ask('stop'), undefined);
  t.is(await stops.ask('stop database'), 'no database: no such service, there are shell, web');
  state.calm = false;
  t.regex((await stops.ask('stop web'))!, /^no web: a service does not listen/);
  state.calm = true;
  channel.reset();
  t.regex((await stops.ask('stop web'))!, /^no web: this is a backup/);
  t.deepEqual([told(), done], [[false, false], []]);
});

test('what was stopped before is told by the next agent', t => {
  const buffer = new ArrayBuffer(wire.PAGE_BYTES);
  const channel = new IvshmemChannel(buffer);
  const stopped = { spec: { name: 'web', command: '', ports: [] }, pid: 0, isStopped: true };
  const service = { ...stopped, start: async () => {}, stop: async () => {}, isBack: () => {} };
  new PlannedStops(
    new ControlPage(buffer),
    [service],
    () => true,
    () => {},
  );
  t.true(channel.services(1)[0]!.isStopped);
});
