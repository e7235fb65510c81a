import { join } from 'node:path';
import { type Lab, SERVICE_ADDRESS } from './lab.js';
import { repositoryRoot } from './run.js';

/** An appliance that gives a root shell to whoever connects to SHELL_PORT. */
export const SHELL_APPLIANCE = join(repositoryRoot(), 'test/appliances/shell.yaml');
const SHELL_PORT = 9090;
/** A guest under stress takes its time. */
const COMMAND_MS = 60_000;

/** Runs commands in the active guest; resolves with what they print. What they leave in the background goes on. */
export function shell(lab: Lab, script: string): Promise<string> {
  const argv = ['busybox', 'nc', '-w', '10', SERVICE_ADDRESS, `${SHELL_PORT}`];
  const child = lab.spawn(lab.clients[0]!.name, argv, { stdio: ['pipe', 'pipe', 'ignore'] });
  let printed = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  child.stdin!.write(`${script}\nexit\n`);
  const timer = setTimeout(() => void lab.stop(child, 500), COMMAND_MS);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      resolve(printed);
    });
  });
}
