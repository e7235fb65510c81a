import { readFileSync } from 'node:fs';
import test from 'ava';
import { Capture } from '../../lib/capture.js';
import { Lab } from '../../lib/lab.js';
import { forEachFrame } from '../../lib/pcap.js';
import { TcpView } from '../../lib/tcp-view.js';
import { Traffic } from '../../lib/traffic.js';
import { shiftTimestamps, TS_AHEAD, TS_BEHIND } from '../../lib/ts-shift.js';
import { startPlainService } from './_service.js';

for (const [name, delta] of [
  ['ahead', TS_AHEAD],
  ['behind', TS_BEHIND],
] as const)
  test.serial(`a client whose timestamps are far ${name} is served as before`, async t => {
    const lab = await Lab.create('unitts', { clients: 2 });
    t.teardown(() => lab.dispose());
    const service = await startPlainService(lab);
    const [shifted, plain] = [lab.clients[0]!, lab.clients[1]!];
    // 2: without the secret offset for each connection, so that the clocks can be compared
    for (const client of [shifted, plain])
      await lab.exec(client.name, ['sysctl', '-qw', 'net.ipv4.tcp_timestamps=2']);
    await shiftTimestamps(lab, shifted, delta);
    const values: number[][] = [];
    for (const client of [shifted, plain]) {
      const capture = await Capture.start(lab, client);
      const result = await new Traffic(lab, client, [service], 20_000).curl('/files/00.bin', 1e9).result;
      t.true(result.ok, result.error);
      await capture.stop();
      const file = readFileSync(capture.file);
      const view = new TcpView(file);
      const sent: number[] = [];
      const echoed: number[] = [];
      forEachFrame(file, frame => {
        if (!view.parse(frame)) return;
        const stamps = view.timestamps()!;
        if (view.destinationPort === 80) sent.push(stamps.value);
        else echoed.push(stamps.echo);
      });
      t.true(sent.length > 5);
      for (const echo of echoed) t.true(sent.includes(echo)); // the server saw what is on the wire
      values.push(sent);
    }
    // both clients have the same clock, and the second connection came seconds later
    const apart = (values[0]![0]! - values[1]![0]! - delta) | 0;
    t.true(Math.abs(apart) < 10_000, `clocks ${apart} ms off the expected distance`);
  });
