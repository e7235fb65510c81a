import test from 'ava';
import type { GuestReport } from '../../../hypervisor-shim/guest-channel/guest-channel.js';
import { AgentWatch, beatOf } from '../../../supervisor/recovery/agent-watch.js';

const WELL: GuestReport = {
  heartbeat: 10n,
  userHeartbeat: 10n,
  heartStarts: 1,
  agentStarts: 1,
  bootId: undefined,
  application: 'listening',
  pid: 1,
  exitStatus: 0,
  epoch: 1,
};

/** Looks at those reports a second apart; returns what was said. */
function said(seconds: number, reportAt: (second: number) => Partial<GuestReport> & { guest?: string }) {
  const events: unknown[] = [];
  const watch = new AgentWatch({
    say: (type, message, data) => void events.push([type, message, data?.part]),
  });
  for (let second = 0; second < seconds; second++) {
    const { guest = 'web-a', ...report } = reportAt(second);
    const beat = BigInt(second);
    watch.look(guest, { ...WELL, heartbeat: beat, userHeartbeat: beat, ...report }, second * 1000);
  }
  return events;
}

test('nothing is said of an agent that lives, nor of another guest that had more deaths', t => {
  t.deepEqual(
    said(60, () => ({})),
    [],
  );
  t.deepEqual(
    said(60, second => (second < 30 ? {} : { guest: 'web-b', agentStarts: 3 })),
    [],
  );
});

test('a part that was started again is told of, once in ten seconds', t => {
  t.deepEqual(
    said(60, second => (second < 30 ? {} : { agentStarts: 2 })),
    [['guest.agent', 'the agent in web-a ended and was started again', 'agent']],
  );
  t.is(said(60, second => ({ heartStarts: second })).length, 6);
});

test('a part that does not come back is told of, once; of a guest in which nothing beats nothing is said', t => {
  const silent = (part: 'heartbeat' | 'userHeartbeat') =>
    said(60, second => (second < 20 ? {} : { [part]: 20n }));
  t.deepEqual(silent('userHeartbeat'), [
    [
      'guest.agent',
      'the agent in web-a gives no beat for 15 s: the service goes on, but what becomes of it is not told any more',
      'agent',
    ],
  ]);
  t.regex(
    String(silent('heartbeat')),
    /^guest\.agent,the agent's heart in web-a gives no beat for 15 s: .*,heart$/,
  );
  t.deepEqual(
    said(60, second => (second < 20 ? {} : { heartbeat: 20n, userHeartbeat: 20n })),
    [],
  );
});

test('either part is the beat of the guest', t => {
  const before = beatOf(WELL);
  t.not(beatOf({ ...WELL, heartbeat: 11n }), before);
  t.not(beatOf({ ...WELL, userHeartbeat: 11n }), before);
});
