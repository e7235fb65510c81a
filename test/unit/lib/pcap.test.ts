import test from 'ava';
import { byClient, earlyFarewell, notPassed } from '../../lib/farewells.js';
import { longestSilence, summarize } from '../../lib/gaps.js';
import { forEachFrame } from '../../lib/pcap.js';
import { traceConnections } from '../../lib/tcp-trace.js';
import { pcapOf, type Segment } from './_packets.js';

const T = 1_700_000_000_000;
const up = (atMs: number, flags: string, seq: number, length = 0): Segment => {
  return { atMs: T + atMs, toServer: true, flags, seq, length };
};
const down = (atMs: number, flags: string, seq: number, length = 0): Segment => {
  return { ...up(atMs, flags, seq, length), toServer: false };
};
/** Handshake with ISNs close to the wrap of sequence space, a request of 100 bytes and `rest`. */
const ISN = 0xffffff00;
const opened = (...rest: Segment[]) => [
  up(0, 'S', ISN),
  down(1, 'SA', ISN),
  up(2, 'A', ISN + 1),
  up(2, 'A', ISN + 1, 100),
  ...rest,
];
const trace = (segments: Segment[]) => traceConnections(pcapOf(segments), [80]);

test('a download across the wrap of sequence space is counted in bytes, GSO frames included', t => {
  const { connections, resets, packets } = trace(
    opened(
      down(10, 'A', ISN + 1, 60_000),
      down(11, 'A', ISN + 60_001, 40_000),
      down(12, 'FA', ISN + 100_001),
    ),
  );
  const [connection] = connections;
  t.is(packets, 7);
  t.deepEqual(resets, []);
  t.is(connection!.client, '10.77.0.100');
  t.is(connection!.clientPort, 40000);
  t.is(connection!.toClient.bytes, 100_000);
  t.is(connection!.toServer.bytes, 100);
  t.is(connection!.toClient.retransmissions, 0);
  t.is(connection!.toClient.fins, 1);
  t.is(connection!.firstMs, T);
  t.is(connection!.lastMs, T + 12);
});

test('repeated and overlapping data are retransmissions, new bytes are counted once', t => {
  const { connections } = trace(
    opened(
      down(10, 'A', ISN + 1, 1000),
      down(11, 'A', ISN + 1, 1000),
      down(12, 'A', ISN + 501, 1000),
      up(13, 'A', ISN + 1, 100),
    ),
  );
  t.is(connections[0]!.toClient.bytes, 1500);
  t.is(connections[0]!.toClient.retransmissions, 2);
  t.is(connections[0]!.toServer.bytes, 100);
  t.is(connections[0]!.toServer.retransmissions, 1);
});

test('the same SYN again is a retransmission, another ISN a reconnect, another port a further connection', t => {
  const again = trace([up(0, 'S', 5), up(1000, 'S', 5), down(1001, 'SA', 9)]);
  t.deepEqual(
    [again.connections[0]!.syns, again.connections[0]!.synRetransmissions, again.connections[0]!.reconnects],
    [2, 1, 0],
  );
  const other = trace([up(0, 'S', 5), down(1, 'SA', 9), up(1000, 'S', 6)]);
  t.is(other.connections[0]!.reconnects, 1);
  const late = trace([up(0, 'S', 5), { ...down(1, 'FA', 5), clientPort: 40001 }]);
  t.is(summarize(late, 1).reconnects, 0);
  const more = trace([up(0, 'S', 5), { ...up(1, 'S', 5), clientPort: 40001 }]);
  t.is(summarize(more, 2).reconnects, 0);
  t.is(summarize(more, 1).reconnects, 1);
});

test('bytes lost before the capture are counted, and their later copy is a retransmission', t => {
  const { connections } = trace(opened(down(10, 'A', ISN + 1001, 1000), down(11, 'A', ISN + 1, 1000)));
  t.is(connections[0]!.toClient.bytes, 2000);
  t.is(connections[0]!.toClient.retransmissions, 1);
});

test('every RST is listed with its direction and time', t => {
  const { connections, resets } = trace(opened(down(10, 'RA', ISN + 1), up(20, 'R', 1)));
  t.deepEqual(resets, [
    { atMs: T + 10, from: '10.77.0.10:80', to: '10.77.0.100:40000' },
    { atMs: T + 20, from: '10.77.0.100:40000', to: '10.77.0.10:80' },
  ]);
  t.is(connections[0]!.toClient.resets, 1);
  t.is(connections[0]!.toServer.resets, 1);
});

test('silence: in a download between packets, on an idle connection only after the next request, none after the end', t => {
  const { connections } = trace(
    opened(
      down(10, 'A', ISN + 1, 1000),
      down(310, 'A', ISN + 1001, 1000), // 300 ms in mid-download
      up(2000, 'A', ISN + 101, 100), // idle until the next request
      down(2050, 'A', ISN + 2001, 1000),
      up(5000, 'FA', ISN + 201),
      down(9000, 'FA', ISN + 3001),
    ),
  );
  const [connection] = connections;
  t.is(longestSilence(connection!, T, T + 10_000), 300);
  t.is(longestSilence(connection!, T + 110, T + 10_000), 200);
  t.is(longestSilence(connection!, T + 310, T + 10_000), 50);
  t.is(longestSilence(connection!, T, T + 110), 100);
});

test('a connection that falls silent and is never closed waits until the end', t => {
  const { connections } = trace(opened(down(10, 'A', ISN + 1, 1000)));
  t.is(longestSilence(connections[0]!, T, T + 5010), 5000);
});

test('IPv6, nanosecond stamps, big-endian headers, and a record cut short are read', t => {
  const file = pcapOf([
    { ...up(0, 'S', 1), ipv6: true },
    { ...down(1, 'SA', 1), ipv6: true },
  ]);
  const { connections } = traceConnections(file, [80]);
  t.is(connections.length, 1);
  t.is(connections[0]!.client, 'fd77::64');
  t.is(traceConnections(file.subarray(0, file.length - 1), [80]).packets, 1);

  const nano = pcapOf([up(1.5, 'S', 1)]);
  nano.writeUInt32LE(0xa1b23c4d, 0);
  nano.writeUInt32LE(1_500_000, 28);
  forEachFrame(nano, frame => t.is(frame.atMs, T + 1.5));
  const big = Buffer.from(nano);
  for (const at of [0, 16, 20, 24, 28, 32, 36]) big.subarray(at, at + 4).swap32();
  forEachFrame(big, frame => t.is(frame.atMs, T + 1.5));
  t.throws(() => forEachFrame(Buffer.alloc(100), () => {}), { message: /not a pcap file/ });
});

test('a million packets take seconds, not minutes', t => {
  const few = pcapOf(
    Array.from({ length: 1000 }, (_, i) => ({
      ...down(i, 'A', i * 1000, 1000),
      clientPort: 40_000 + (i % 50),
    })),
  );
  const records = few.subarray(24);
  const file = Buffer.concat([few.subarray(0, 24), ...Array.from({ length: 1000 }, () => records)]);
  const begun = performance.now();
  t.is(traceConnections(file, [80]).packets, 1_000_000);
  const ms = performance.now() - begun;
  t.log(`${Math.round(ms)} ms`);
  t.true(ms < 10_000, `${ms} ms`);
});

test('who says goodbye first: a server that answers a FIN is no crash, one that says FIN or RST by itself is', t => {
  const farewells = (...rest: Segment[]) => trace(opened(...rest)).connections.flatMap(earlyFarewell);
  t.deepEqual(farewells(up(10, 'FA', ISN + 101), down(11, 'FA', ISN + 1)), []);
  t.deepEqual(farewells(up(10, 'FA', ISN + 101), down(11, 'R', ISN + 1)), []);
  t.regex(farewells(down(10, 'FA', ISN + 1), up(11, 'FA', ISN + 101))[0]!, /told FIN/);
  t.regex(farewells(down(10, 'RA', ISN + 1))[0]!, /told RST/);
  // what the host says to a guest in its client's name
  t.regex(farewells(up(10, 'R', ISN + 101), down(11, 'R', ISN + 1))[0]!, /told RST/);
});

test('what did not pass the data path is found, each way', t => {
  const there = byClient(trace(opened(down(10, 'A', ISN + 1, 1000)))).get('10.77.0.100:40000');
  const differences = (...rest: Segment[]) => notPassed(there, trace(opened(...rest)).connections[0]!);
  t.deepEqual(differences(down(10, 'A', ISN + 1, 1000), up(11, 'A', ISN + 101)), []);
  t.regex(differences()[0]!, /packets of the guest: 1 at the client, 2 at/);
  t.regex(
    differences(down(10, 'A', ISN + 1, 1000), up(11, 'A', ISN + 101, 5))[0]!,
    /bytes of the client: 105/,
  );
  t.regex(differences(down(10, 'A', ISN + 1, 1000), up(11, 'R', ISN + 101))[0]!, /RST/);
  t.is(notPassed(undefined, trace(opened()).connections[0]!).length, 1);
});
