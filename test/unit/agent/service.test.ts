/** A service in its cgroup, with real processes; in mounts of its own, for the agent has fixed places. */
import { join } from 'node:path';
import test from 'ava';
import { run } from '../../lib/run.js';

test('a stop on purpose ends all of its processes and is no fault; what comes after it is', async t => {
  const script = 'mount -t tmpfs run /run && mount -t cgroup2 cgroup /sys/fs/cgroup && exec "$@"';
  const program = [process.execPath, join(import.meta.dirname, '_service.js')];
  const { stdout } = await run(['unshare', '--mount', 'sh', '-c', script, 'sh', ...program], {
    timeoutMs: 60_000,
  });
  t.deepEqual(JSON.parse(stdout), {
    belongs: [true, false, false],
    stopped: [0, 0, 0, true],
    isStopped: false,
    ends: [[true, 9]],
    told: ['begins', 'runs', 'runs, announced'],
  });
});
