import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { pino } from 'pino';
import { EventLog } from '../../../supervisor/events/event-log.js';
import { ServiceNames } from '../../../supervisor/service/names.js';
import { ServiceFiles, savedServices } from '../../../supervisor/service/state-file.js';
import { Supervisor } from '../../../supervisor/supervisor.js';
import { errorOf, temporaryFolder } from './helpers.js';

const NOT_NAMES = ['', '.', '..', '../../x', '/etc', 'a/b', 'Web', 'a\n', 'a'.repeat(13)];

test('what is no name of a service is made no path of, and nothing is removed', async t => {
  const stateDir = join(temporaryFolder(), 'state');
  const beside = join(stateDir, 'x.json');
  mkdirSync(join(stateDir, 'services/inner'), { recursive: true });
  for (const file of [beside, join(stateDir, 'services/...json')]) writeFileSync(file, '{}');
  t.deepEqual(savedServices(stateDir), []);
  const eventLog = EventLog.open(stateDir);
  const supervisor = await Supervisor.create({ stateDir, eventLog, logger: pino({ enabled: false }) });
  for (const name of NOT_NAMES) {
    t.is((await errorOf(() => new ServiceNames(name))).code, 'HF_SERVICE_UNKNOWN', name);
    t.is((await errorOf(() => new ServiceFiles(stateDir, name))).code, 'HF_SERVICE_UNKNOWN', name);
    t.is((await errorOf(() => supervisor.down(name))).code, 'HF_SERVICE_UNKNOWN', name);
    t.is((await errorOf(() => supervisor.connections(name))).code, 'HF_SERVICE_UNKNOWN', name);
  }
  t.true(existsSync(beside));
  t.true(existsSync(join(stateDir, 'services/inner')));
  await supervisor.shutdown();
  await eventLog.close();
});
