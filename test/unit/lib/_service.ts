import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { ExpectedBody } from '../../lib/body-check.js';
import { BRIDGE, type Lab, SERVICE_ADDRESS } from '../../lib/lab.js';
import type { ServiceTarget } from '../../lib/traffic.js';
import { FILE_BYTES, fileBody, SMALL_BYTES } from './_server.js';

/** Starts the plain server in the lab's host namespace, at the address a protected service would have. */
export async function startPlainService(lab: Lab): Promise<ServiceTarget> {
  await lab.exec(lab.host, ['ip', 'addr', 'add', `${SERVICE_ADDRESS}/24`, 'dev', BRIDGE]);
  const script = fileURLToPath(new URL('_server.js', import.meta.url));
  const child = lab.spawn(lab.host, [process.execPath, script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout!, 'data');
  const expected = (path: string, bytes: number): [string, ExpectedBody] => [
    path,
    { bytes, sha256: createHash('sha256').update(fileBody(path, bytes)).digest('hex') },
  ];
  const files = new Map([expected('/files/00.bin', FILE_BYTES), expected('/files/01.bin', FILE_BYTES)]);
  // the same expectation under paths on which the server misbehaves
  for (const fault of ['corrupt', 'reset', 'short'])
    files.set(`/${fault}/files/00.bin`, files.get('/files/00.bin')!);
  return {
    httpUrl: `http://${SERVICE_ADDRESS}`,
    sinkUrl: `http://${SERVICE_ADDRESS}:8080`,
    files,
    small: new Map(SMALL_BYTES.map(bytes => expected(`/small/${bytes}`, bytes))),
  };
}
