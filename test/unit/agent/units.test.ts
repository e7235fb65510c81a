/** Units of systemd's, by a systemctl(1) of the test's own. With the real one: test/stock. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import test from 'ava';
import type { Exit } from '../../../guest-agent/services.js';
import { parseProperties, Unit } from '../../../guest-agent/units.js';
import { EXIT_UNKNOWN } from '../../../guest-agent/wire/control-page.js';
import { waitFor } from '../../lib/run.js';

const folder = mkdtempSync(join(tmpdir(), 'hf-units-'));
const file = (name: string) => join(folder, name);
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

/** Knows one unit, good.service: `start` runs it unless it runs, `show` says what the file `main` says. */
const SYSTEMCTL = `#!/bin/sh
cd ${folder}
case "$*" in
  'start --no-ask-password good.service')
    main=$(sed -n 's/^MainPID=//p' main 2>/dev/null)
    [ "\${main:-0}" -gt 0 ] && kill -0 "$main" && exit
    sleep 60 >/dev/null 2>&1 &
    printf 'MainPID=%s\\nExecMainPID=%s\\nControlGroup=/none\\n' $! $! >main ;;
  'show '*good.service) cat main ;;
  *) echo "Failed to $1 it" >&2; exit 5 ;;
esac
`;
writeFileSync(file('systemctl'), SYSTEMCTL);
chmodSync(file('systemctl'), 0o755);
process.env.PATH = `${folder}${delimiter}${process.env.PATH}`;

/** A unit, and the ends of it that were told. */
function watched(unit: string) {
  const exits: Exit[] = [];
  const service = new Unit({ name: 'one', unit, ports: [80] }, 0, undefined);
  return { service, exits, start: () => service.start(exit => void exits.push(exit)) };
}

const ended = (exits: Exit[], count: number) =>
  waitFor('its end to be told', 20_000, () => exits.length === count || undefined, 5);

test('a unit is started or found running; its end is told with the status that systemd has', async t => {
  const { service, exits, start } = watched('good.service');
  await start();
  const first = service.pid;
  t.true(first > 0);
  const next = watched('good.service');
  await next.start();
  t.is(next.service.pid, first, 'the next agent finds it');

  writeFileSync(file('main'), `MainPID=0\nExecMainPID=${first}\nExecMainCode=2\nExecMainStatus=9\n`);
  process.kill(first, 'SIGKILL');
  await ended(exits, 1);
  t.deepEqual(exits, [{ service: 'one', pid: first, status: 9 }]);
  t.is(service.pid, 0);
  await service.clear(); // its cgroup has gone with it

  await start();
  t.true(service.pid > 0 && service.pid !== first);
  t.is(exits.length, 1, 'started again, it is a new one');
  const second = service.pid;
  writeFileSync(file('main'), `MainPID=${process.pid}\nExecMainPID=${process.pid}\n`);
  process.kill(second, 'SIGKILL');
  await ended(exits, 2);
  t.deepEqual(exits[1], { service: 'one', pid: second, status: EXIT_UNKNOWN }, 'another runs already');
});

test('a unit that can not be started has ended', async t => {
  const { service, exits, start } = watched('bad.service');
  await start();
  t.deepEqual(exits, [{ service: 'one', pid: 0, status: 256 }]);
  t.is(service.pid, 0);
});

test('properties of a unit', t => {
  t.deepEqual(parseProperties('MainPID=12\nExecMainStatus=\nX=a=b\n\n'), {
    MainPID: '12',
    ExecMainStatus: '',
    X: 'a=b',
  });
});
