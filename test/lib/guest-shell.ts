import { join } from 'node:path';
import { type Lab, SERVICE_ADDRESS } from './lab.js';
import { repositoryRoot, sleep } from './run.js';

/** An appliance that gives a root shell to whoever connects to SHELL_PORT. */
export const SHELL_APPLIANCE = join(repositoryRoot(), 'test/appliances/shell.yaml');
/** The same, with a sink that keeps uploads; whoever uses the shell for long does not look like a service that has ended. */
export const COMMANDER_APPLIANCE = join(repositoryRoot(), 'test/appliances/commander.yaml');
const SHELL_PORT = 9090;
/** A guest under stress takes its time. */
const COMMAND_MS = 60_000;

/** Runs commands in the active guest; resolves with what they print. What they leave in the background goes on. */
export function shell(lab: Lab, script: string): Promise<string> {
  return shellAt(lab, lab.clients[0]!.name, SERVICE_ADDRESS, script);
}

/** The same in any guest, from the host, by its management address. */
export function managementShell(lab: Lab, address: string, script: string): Promise<string> {
  return shellAt(lab, lab.host, address.split('/')[0]!, script);
}

/** Between two connections its listener is away for a moment: whoever is refused then tries again. */
async function shellAt(lab: Lab, namespace: string, address: string, script: string): Promise<string> {
  const deadline = performance.now() + COMMAND_MS;
  for (;;) {
    const { printed, errors } = await converse(lab, namespace, address, script);
    if (!/refused/.test(errors) || performance.now() > deadline) return printed;
    await sleep(100);
  }
}

function converse(lab: Lab, namespace: string, address: string, script: string) {
  const argv = ['busybox', 'nc', '-w', '10', address, `${SHELL_PORT}`];
  const child = lab.spawn(namespace, argv, { stdio: ['pipe', 'pipe', 'pipe'] });
  const said = { printed: '', errors: '' };
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    said.printed += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said.errors += text;
  });
  child.stdin!.on('error', () => {});
  child.stdin!.write(`${script}\nexit\n`);
  const timer = setTimeout(() => void lab.stop(child, 500), COMMAND_MS);
  return new Promise<typeof said>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      resolve(said);
    });
  });
}
