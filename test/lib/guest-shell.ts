import { join } from 'node:path';
import { type Lab, SERVICE_ADDRESS } from './lab.js';
import { repositoryRoot, sleep, waitFor } from './run.js';
import type { Supervisor } from './supervisor.js';

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

/**
 * As `shell`, again until it answers: it takes one connection after the other, and a busy guest a while in between. For what may be
 * done twice.
 */
export function ask(lab: Lab, script: string): Promise<string> {
  const mark = 'that was all\n';
  return waitFor(`an answer to ${script}`, COMMAND_MS, async () => {
    const printed = await shell(lab, `${script}\necho ${mark}`);
    return printed.endsWith(mark) ? printed.slice(0, -mark.length) : undefined;
  });
}

/** Processes of the agent's two parts, by what the event `guest.agent` calls them. */
const AGENT_PARTS = { agent: 'node', heart: 'heart-beating' } as const;
export type AgentPart = keyof typeof AGENT_PARTS;
/** Under emulation, in a guest under stress, a start of the agent has taken 16 s. */
const START_MS = 120_000;

/**
 * Sends SIGKILL to that part of the active guest's agent, and waits for the event which says that it has been started again, and until
 * both are at work: one heart beats, one waits. Returns what the event says.
 */
export async function killAgentPart(lab: Lab, supervisor: Supervisor, part: AgentPart): Promise<string> {
  const before = (await supervisor.events()).length;
  await ask(lab, `kill -9 $(busybox pidof ${AGENT_PARTS[part]})`);
  const { message } = await waitFor(`the ${part} to be started again`, START_MS, async () =>
    (await supervisor.events())
      .slice(before)
      .find(
        event =>
          event.type === 'guest.agent' && event.data.part === part && event.message.includes('started again'),
      ),
  );
  if (part === 'heart') return message;
  await waitFor('the next heart', START_MS, async () =>
    (await ask(lab, 'busybox pidof holdfast-heart')).trim().includes(' ') ? true : undefined,
  );
  return message;
}
