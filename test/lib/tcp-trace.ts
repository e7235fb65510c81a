import { forEachFrame } from './pcap.js';
import { ACK, FIN, RST, SYN, seqDiff, TcpView } from './tcp-view.js';

/** One way of a connection, as seen on the wire at the capturing end. */
export interface DirectionTrace {
  packets: number;
  /** Payload bytes by sequence numbers: repeats do not count. */
  bytes: number;
  fins: number;
  resets: number;
  /** First FIN, and first FIN or RST, ms since 1970. */
  finMs: number | undefined;
  farewellMs: number | undefined;
  /** Segments with payload that begin below the highest byte already sent. */
  retransmissions: number;
  /** Time of the last segment with new payload, ms since 1970; undefined if there was none. */
  lastDataMs: number | undefined;
}

export interface ConnectionTrace {
  client: string;
  clientPort: number;
  server: string;
  serverPort: number;
  /** SYNs of the client: the first, its retransmissions, and such with another ISN (the client connected again). */
  syns: number;
  synRetransmissions: number;
  reconnects: number;
  firstMs: number;
  lastMs: number;
  toServer: DirectionTrace;
  toClient: DirectionTrace;
  /** First FIN or RST of either side, ms since 1970. */
  closingMs: number | undefined;
  /** Spells in which the client waited for a packet of the server: [begin, end] pairs, flat, ms since 1970. */
  waits: number[];
}

export interface ResetTrace {
  atMs: number;
  from: string;
  to: string;
}

export interface Trace {
  connections: ConnectionTrace[];
  resets: ResetTrace[];
  packets: number;
}

interface Working extends ConnectionTrace {
  isn: number | undefined;
  /** Highest sequence number + 1 each way; undefined before the first packet. */
  serverNext: number | undefined;
  clientNext: number | undefined;
  lastServerMs: number | undefined;
  /** When the client first sent new payload after the server's last packet: it waits from then on. */
  askedMs: number | undefined;
}

/** Reads a capture into connections. `serverPorts` tell which end is the server. */
export function traceConnections(file: Buffer, serverPorts: readonly number[]): Trace {
  const view = new TcpView(file);
  const served = new Set(serverPorts);
  const table = new Map<number, Working>();
  const hosts = new Map<number | string, number>();
  const resets: ResetTrace[] = [];
  let packets = 0;
  // small numbers for addresses keep the key of a connection a number: a million packets make no strings
  const hostId = (at: number): number => {
    const key = view.addressLength === 4 ? file.readUInt32BE(at) : file.toString('latin1', at, at + 16);
    let id = hosts.get(key);
    if (id === undefined) {
      id = hosts.size;
      if (id >= 1024) throw new Error('more than 1024 addresses in one capture');
      hosts.set(key, id);
    }
    return id;
  };
  forEachFrame(file, frame => {
    if (!view.parse(frame)) return;
    const toServer = served.has(view.destinationPort);
    if (!toServer && !served.has(view.sourcePort)) return;
    packets++;
    const source = hostId(view.addresses);
    const destination = hostId(view.addresses + view.addressLength);
    const [client, server] = toServer ? [source, destination] : [destination, source];
    const [clientPort, serverPort] = toServer
      ? [view.sourcePort, view.destinationPort]
      : [view.destinationPort, view.sourcePort];
    const key = ((client * 1024 + server) * 65536 + clientPort) * 65536 + serverPort;
    let connection = table.get(key);
    if (connection === undefined) {
      connection = begin(view, toServer, frame.atMs);
      table.set(key, connection);
    }
    connection.lastMs = frame.atMs;
    if ((view.flags & RST) !== 0)
      resets.push({
        atMs: frame.atMs,
        from: `${view.sourceAddress()}:${view.sourcePort}`,
        to: `${view.destinationAddress()}:${view.destinationPort}`,
      });
    if (toServer) fromClient(connection, view, frame.atMs);
    else fromServer(connection, view, frame.atMs);
  });
  return { connections: [...table.values()], resets, packets };
}

function begin(view: TcpView, toServer: boolean, atMs: number): Working {
  const [source, destination] = [view.sourceAddress(), view.destinationAddress()];
  const direction = (): DirectionTrace => ({
    packets: 0,
    bytes: 0,
    fins: 0,
    resets: 0,
    finMs: undefined,
    farewellMs: undefined,
    retransmissions: 0,
    lastDataMs: undefined,
  });
  return {
    client: toServer ? source : destination,
    clientPort: toServer ? view.sourcePort : view.destinationPort,
    server: toServer ? destination : source,
    serverPort: toServer ? view.destinationPort : view.sourcePort,
    syns: 0,
    synRetransmissions: 0,
    reconnects: 0,
    firstMs: atMs,
    lastMs: atMs,
    toServer: direction(),
    toClient: direction(),
    closingMs: undefined,
    waits: [],
    isn: undefined,
    serverNext: undefined,
    clientNext: undefined,
    lastServerMs: undefined,
    askedMs: undefined,
  };
}

function fromClient(connection: Working, view: TcpView, atMs: number): void {
  if ((view.flags & (SYN | ACK)) === SYN) {
    connection.syns++;
    if (connection.isn === view.seq) connection.synRetransmissions++;
    else {
      if (connection.isn !== undefined) connection.reconnects++;
      // a new connection on the same ports: both sequence spaces begin anew
      connection.isn = view.seq;
      connection.clientNext = undefined;
      connection.serverNext = undefined;
    }
    connection.askedMs ??= atMs;
  }
  connection.clientNext = count(connection, connection.toServer, view, connection.clientNext, atMs);
  if (connection.toServer.lastDataMs === atMs && view.payload > 0) connection.askedMs ??= atMs;
}

function fromServer(connection: Working, view: TcpView, atMs: number): void {
  const since = connection.askedMs ?? connection.lastServerMs;
  if (since !== undefined) connection.waits.push(since, atMs);
  connection.lastServerMs = atMs;
  connection.askedMs = undefined;
  connection.serverNext = count(connection, connection.toClient, view, connection.serverNext, atMs);
}

/** Accounts one segment; returns the new highest sequence number + 1 of its direction. */
function count(
  connection: Working,
  direction: DirectionTrace,
  view: TcpView,
  next: number | undefined,
  atMs: number,
): number | undefined {
  direction.packets++;
  if ((view.flags & (FIN | RST)) !== 0) {
    connection.closingMs ??= atMs;
    direction.farewellMs ??= atMs;
  }
  if ((view.flags & RST) !== 0) {
    direction.resets++;
    return next; // its sequence number may be anything
  }
  if ((view.flags & FIN) !== 0) {
    direction.fins++;
    direction.finMs ??= atMs;
  }
  const phantom = (view.flags & SYN ? 1 : 0) + (view.flags & FIN ? 1 : 0);
  const end = (view.seq + view.payload + phantom) >>> 0;
  if (next === undefined) {
    direction.bytes += view.payload;
    if (view.payload > 0) direction.lastDataMs = atMs;
    return end;
  }
  if (view.payload > 0 && seqDiff(view.seq, next) < 0) direction.retransmissions++;
  const fresh = seqDiff(end, next);
  if (fresh <= 0) return next;
  // what lies between counts too: it was lost before it came here, and comes again as a retransmission
  const newBytes = Math.max(fresh - phantom, 0);
  if (newBytes > 0) {
    direction.bytes += newBytes;
    direction.lastDataMs = atMs;
  }
  return end;
}
