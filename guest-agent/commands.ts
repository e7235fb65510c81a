import { readdirSync, readlinkSync } from 'node:fs';
import type { Watched } from './services.js';
import { command as word } from './wire/control-page.js';

/** Carries out a command of the host's that is the event loop's, see wire/control-page.ts. What cannot be done is told on the console. */
export function carryOut(
  command: number,
  services: readonly Watched[],
  ports: readonly number[],
  restart: () => Promise<void>,
): void {
  const target = services.find(({ spec }) => spec.ports.some(port => ports.includes(port)));
  const failed = (error: Error) => console.error(`holdfast: command ${command}: ${error.message}`);
  try {
    if (command === word.restart) restart().catch(failed);
    else if (!target?.pid) throw new Error('no service runs that it could meet');
    else if (command === word.appKill) process.kill(-target.pid, 'SIGKILL');
    else if (command === word.appSegv) process.kill(target.pid, 'SIGSEGV');
    else if (command === word.appStop) process.kill(target.pid, 'SIGTERM');
    else if (command === word.appWorker) process.kill(busiest(target.others()), 'SIGKILL');
  } catch (error) {
    failed(error as Error);
  }
}

function busiest(pids: readonly number[]): number {
  const [first] = pids
    .map(pid => ({ pid, sockets: countSockets(pid) }))
    .sort((a, b) => b.sockets - a.sockets);
  if (first === undefined) throw new Error('the service has one process only');
  return first.pid;
}

function countSockets(pid: number): number {
  try {
    const targets = readdirSync(`/proc/${pid}/fd`).map(fd => readlinkSync(`/proc/${pid}/fd/${fd}`));
    return targets.filter(target => target.startsWith('socket:')).length;
  } catch {
    return 0; // it has ended
  }
}
