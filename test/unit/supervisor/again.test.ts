import { join } from 'node:path';
import test from 'ava';
import { pino } from 'pino';
import { EventLog } from '../../../supervisor/events/event-log.js';
import { Supervisor } from '../../../supervisor/supervisor.js';
import { errorOf, MINIMAL, temporaryFolder } from './helpers.js';

test('while a service is taken down it is not said to be protected', async t => {
  const stateDir = join(temporaryFolder(), 'state');
  const eventLog = EventLog.open(stateDir);
  const supervisor = await Supervisor.create({ stateDir, eventLog, logger: pino({ enabled: false }) });
  const config = MINIMAL.replace('web', `a${process.pid}`).replace('/images/web', '/nowhere');
  const started = errorOf(() => supervisor.protect(config, '/web.yaml'));
  const down = supervisor.down(`a${process.pid}`);
  t.is((await errorOf(() => supervisor.protect(config, '/web.yaml'))).code, 'HF_SERVICE_BUSY');
  t.is((await started).code, 'HF_IMAGE_MISSING');
  await down;
  // And the lock of the service is free again.
  t.is((await errorOf(() => supervisor.protect(config, '/web.yaml'))).code, 'HF_IMAGE_MISSING');
  await supervisor.shutdown();
  await eventLog.close();
});
