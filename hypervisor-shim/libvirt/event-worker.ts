import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import koffi from 'koffi';
import { initialize, type Pointer, vir } from './binding.js';
import { lastFailure } from './calls.js';
import { libvirt } from './constants.js';
import type { LibvirtFailure } from './libvirt-error.js';

/** What libvirt said about a domain. `event` and `detail` are libvirt's numbers; `atNs` is CLOCK_MONOTONIC. */
export interface RawEvent {
  source: 'lifecycle' | 'reboot' | 'watchdog';
  domain: string;
  event: number;
  detail: number;
  atNs: bigint;
}

export type ToEventWorker = { op: 'subscribe'; id: number; uri: string } | { op: 'unsubscribe'; id: number };

export type FromEventWorker =
  | { kind: 'ready'; timer: number }
  | { kind: 'subscribed'; id: number }
  | { kind: 'refused'; id: number; failure: LibvirtFailure }
  | { kind: 'event'; id: number; raw: RawEvent }
  | { kind: 'lost'; id: number; reason: number }
  | { kind: 'unsubscribed'; id: number };

const port = parentPort as MessagePort;
const stop = new Int32Array((workerData as { stop: SharedArrayBuffer }).stop);
const say = (message: FromEventWorker) => port.postMessage(message);

const lifecycleType = koffi.pointer(koffi.proto('void HoldfastLifecycle(void *, void *, int, int, void *)'));
const domainType = koffi.pointer(koffi.proto('void HoldfastDomain(void *, void *, void *)'));
const watchdogType = koffi.pointer(koffi.proto('void HoldfastWatchdog(void *, void *, int, void *)'));
const closeType = koffi.pointer(koffi.proto('void HoldfastClose(void *, int, void *)'));
const timerType = koffi.pointer(koffi.proto('void HoldfastTimer(int, void *)'));

const open = new Map<number, () => void>();

function subscribe(id: number, uri: string): void {
  const connection = vir.connectOpen(uri);
  if (!connection) {
    say({ kind: 'refused', id, failure: lastFailure(true) });
    return;
  }

  const report = (source: RawEvent['source'], domain: Pointer, event: number, detail: number) => {
    const atNs = process.hrtime.bigint();
    say({ kind: 'event', id, raw: { source, domain: vir.domainName(domain), event, detail, atNs } });
  };
  const lifecycle = koffi.register(
    (_: Pointer, domain: Pointer, event: number, detail: number) =>
      report('lifecycle', domain, event, detail),
    lifecycleType,
  );
  const reboot = koffi.register((_: Pointer, domain: Pointer) => report('reboot', domain, 0, 0), domainType);
  const watchdog = koffi.register(
    (_: Pointer, domain: Pointer, action: number) => report('watchdog', domain, action, 0),
    watchdogType,
  );
  const closed = koffi.register((_: Pointer, reason: number) => say({ kind: 'lost', id, reason }), closeType);

  vir.registerClose(connection, closed, null, null);
  vir.setKeepAlive(connection, 3, 3);
  const { eventId } = libvirt;
  const registered = [
    vir.registerEvent(connection, null, eventId.lifecycle, lifecycle, null, null),
    vir.registerEvent(connection, null, eventId.reboot, reboot, null, null),
    vir.registerEvent(connection, null, eventId.watchdog, watchdog, null, null),
  ];
  open.set(id, () => {
    for (const callbackId of registered) if (callbackId >= 0) vir.deregisterEvent(connection, callbackId);
    vir.unregisterClose(connection, closed);
    vir.connectClose(connection);
    // The loop may still hold a deferred removal of these callbacks: let it run before they go.
    afterTurns.push({
      turns: 3,
      run: () => {
        for (const callback of [lifecycle, reboot, watchdog, closed]) koffi.unregister(callback);
      },
    });
  });
  if (registered.some(callbackId => callbackId < 0)) {
    say({ kind: 'refused', id, failure: lastFailure() });
    unsubscribe(id);
  } else {
    say({ kind: 'subscribed', id });
  }
}

function unsubscribe(id: number): void {
  open.get(id)?.();
  open.delete(id);
}

/** Work that waits for a number of turns of the event loop. */
const afterTurns: { turns: number; run(): void }[] = [];

function afterTurn(): void {
  for (const later of afterTurns.splice(0)) {
    if (--later.turns <= 0) later.run();
    else afterTurns.push(later);
  }
}

function takeRequests(): void {
  for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) {
    const message = next.message as ToEventWorker;
    vir.resetLastError();
    if (message.op === 'subscribe') {
      subscribe(message.id, message.uri);
    } else {
      unsubscribe(message.id);
      say({ kind: 'unsubscribed', id: message.id });
    }
  }
}

initialize();
vir.registerDefaultImpl();
// The thread sleeps inside libvirt's poll, so messages alone do not wake it; setting this timer to 0 ms does.
const timer: number = vir.addTimeout(
  -1,
  koffi.register((id: number) => vir.updateTimeout(id, -1), timerType),
  null,
  null,
);
say({ kind: 'ready', timer });
while (Atomics.load(stop, 0) === 0) {
  if (vir.runDefaultImpl() < 0) Atomics.wait(stop, 0, 0, 50);
  afterTurn();
  takeRequests();
}
for (const id of [...open.keys()]) unsubscribe(id);
port.close();
