import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { initialize, type Pointer, vir } from './binding.js';
import { type Arguments, CallFailed, type Calls, calls, lastFailure, type Operation } from './calls.js';
import type { LibvirtFailure } from './libvirt-error.js';

/** One lane of calls: a thread with a connection of its own, working off requests one after the other. */
export interface CallRequest {
  id: number;
  operation: Operation;
  args: Arguments<Operation>;
}

export type CallReply =
  | { id: number; value: ReturnType<Calls[Operation]> }
  | { id: number; failure: LibvirtFailure };

const port = parentPort as MessagePort;
const { uri, keepAlive } = workerData as { uri: string; keepAlive: { intervalS: number; count: number } };
let connection: Pointer | null = null;

function connected(): Pointer {
  if (connection && vir.connectIsAlive(connection) === 1) return connection;
  disconnect();
  connection = vir.connectOpen(uri);
  // Not being connected at all counts as lost: the caller may wait for the daemon and try again.
  if (!connection) throw new CallFailed(lastFailure(true));
  vir.setKeepAlive(connection, keepAlive.intervalS, keepAlive.count);
  return connection;
}

function disconnect(): void {
  if (connection) vir.connectClose(connection);
  connection = null;
}

function perform({ id, operation, args }: CallRequest): CallReply {
  try {
    vir.resetLastError();
    const call = calls[operation] as (
      connection: Pointer,
      ...args: unknown[]
    ) => ReturnType<Calls[Operation]>;
    return { id, value: call(connected(), ...args) };
  } catch (error) {
    if (!(error instanceof CallFailed)) {
      return { id, failure: { code: 1, domain: 0, text: String(error), lost: false } };
    }
    const { code, domain, text, lost } = error.failure;
    const dead = connection !== null && vir.connectIsAlive(connection) !== 1;
    return { id, failure: { code, domain, text, lost: lost || dead } };
  }
}

initialize();
// Connect ahead of the first call; should that fail, the call says why.
try {
  connected();
} catch {}
port.on('message', (request: CallRequest | 'close') => {
  if (request === 'close') {
    disconnect();
    port.close();
  } else {
    port.postMessage(perform(request));
  }
});
