/** In mounts of its own: stops and starts a service of three processes, kills it, and prints what the agent came to know of it. */
import { rmdirSync } from 'node:fs';
import { Cgroup } from '../../../guest-agent/cgroup.js';
import type { ExitWatch } from '../../../guest-agent/exit-watch.js';
import { type Exit, Service } from '../../../guest-agent/services.js';
import { waitFor } from '../../lib/run.js';

const name = `unit-${process.pid}`;
const told: string[] = [];
const exitWatch = {
  watch: (_cgroup: Cgroup, _service: number, main: number, _spec: unknown, announced: boolean) =>
    void told.push(`${main === 0 ? 'begins' : 'runs'}${announced ? ', announced' : ''}`),
} as unknown as ExitWatch;
const spec = { name, command: 'sleep 100 & sleep 100 & wait', ports: [] };
const service = new Service({ ...spec, command: ['sh', '-c', spec.command] }, 0, exitWatch, undefined);
const exits: Exit[] = [];
const onExit = (exit: Exit) => void exits.push(exit);
const members = (count: number) =>
  waitFor(`${count} processes`, 20_000, () => service.others().length === count || undefined, 5);
const ROUNDS = 20;
const cgroup = Cgroup.of(name)!;

try {
  service.start(onExit);
  await members(2);
  const belongs = [service.pid, process.pid, 0x7fffffff].map(pid => cgroup.has(pid));
  await service.stop();
  const stopped = [service.pid, service.others().length, exits.length, service.isStopped];
  const beginning = [...told];
  // Whoever is quick finds the kernel done before its news has come.
  for (let round = 0; round < ROUNDS; round++) {
    service.start(onExit);
    service.isBack();
    await members(2);
    await service.stop();
  }
  service.start(onExit);
  service.isBack();
  await members(2);
  const main = service.pid;
  process.kill(main, 'SIGKILL');
  await waitFor('its end', 20_000, () => exits.length > 0 || undefined, 5);
  const ends = exits.map(exit => [exit.pid === main, exit.status]);
  console.log(JSON.stringify({ belongs, stopped, isStopped: service.isStopped, ends, told: beginning }));
} finally {
  // They hold our standard output open.
  await service.clear();
  rmdirSync(cgroup.path);
}
