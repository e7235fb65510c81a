/**
 * The guest agent: starts the services that the image declares, or has systemd start them, says on the control page how they are, and
 * beats. Without a control page it only starts the services. It never restarts one: what follows a death is the host's word.
 */
import { readFileSync } from 'node:fs';
import { isWantedByHost, watchAcceptQueues } from './accept-queue.js';
import { carryOut } from './commands.js';
import { ExitWatch, protectedPorts } from './exit-watch.js';
import { receiveCommands } from './heart.js';
import { listeningPorts } from './listeners.js';
import { Notices } from './notices.js';
import { ControlPage, type Report } from './page.js';
import { PlannedStops } from './planned-stops.js';
import { serveRequests } from './requests.js';
import { type Exit, Service, type ServiceSpec, type Watched } from './services.js';
import { mountStorage, settleDisk } from './storage.js';
import { Unit, type UnitSpec } from './units.js';
import { STOP_ACK_MS, USER_BEAT_MS } from './wire/control-page.js';

/** How often listeners are looked for while the service starts, and afterwards, ms. */
const STARTING_POLL_MS = 20;
const STEADY_POLL_MS = 1000;
const ACK_POLL_MS = 5;

function openPage(): ControlPage | undefined {
  try {
    return ControlPage.open();
  } catch (error) {
    console.error(`holdfast: no control page: ${(error as Error).message}`);
    return undefined;
  }
}

async function main(configFile: string): Promise<void> {
  const page = openPage();
  let stops: PlannedStops | undefined;
  if (page !== undefined) {
    setInterval(() => page.beat(), USER_BEAT_MS);
    serveRequests(page.buffer, text => stops?.ask(text));
  }

  const specs = JSON.parse(readFileSync(configFile, 'utf8')) as (ServiceSpec | UnitSpec)[];
  if (specs.length === 0) console.error(`holdfast: ${configFile} names no service`);
  const exitWatch = page && (await ExitWatch.open(page, specs));
  const notices = page && new Notices(page);
  const services = specs.map((spec, index) =>
    'unit' in spec ? new Unit(spec, index, exitWatch) : new Service(spec, index, exitWatch, notices),
  );
  // The death of an agent is not to be felt: clients that come while its successor starts find the service listening.
  const listens = page?.earlier === 'listening';
  const report: Report = { application: listens ? 'listening' : 'starting', pid: 0, exitStatus: 0 };
  const publish = (change: Partial<Report>) => page?.report(Object.assign(report, change));
  const isOver = () => report.application === 'exited' || report.application === 'stopping';

  await mountStorage(() => publish({ application: 'waiting' }));
  publish({ application: listens ? 'listening' : 'starting' });
  const onExit = (exit: Exit) => {
    console.error(`holdfast: ${exit.service} (pid ${exit.pid}) ended, status ${exit.status}`);
    // The first death is the fault; those that follow from it would hide its status.
    if (!isOver()) publish({ application: 'exited', pid: exit.pid, exitStatus: exit.status });
  };
  if (page) stops = new PlannedStops(page, services, () => report.application === 'listening', onExit);
  const start = async (some: readonly Watched[]) => {
    // What an earlier agent was told to stop, or was about to.
    await Promise.all(some.map(service => (service.isStopped ? service.clear() : service.start(onExit))));
    if (!isOver()) publish({ pid: services[0]?.pid ?? 0 });
  };

  // Process 1 shuts the machine down, and waits for our end before it stops anything.
  process.on('SIGUSR2', () => {
    publish({ application: 'stopping' });
    setTimeout(() => process.exit(), page ? STOP_ACK_MS : 0);
    if (page) setInterval(() => page.stopAcknowledged && process.exit(), ACK_POLL_MS);
  });

  const isWanted = (service: Watched) => !service.isStopped;
  let timer: NodeJS.Timeout | undefined;
  let settled = false;
  const poll = async () => {
    clearTimeout(timer);
    if (isOver() || services.length === 0) return;
    const present = listeningPorts();
    const wanted = services.filter(isWanted).flatMap(({ spec }) => spec.ports);
    const application = wanted.every(port => present.has(port)) ? 'listening' : 'starting';
    if (application !== report.application) {
      // A service that is started again has connections that wait for it, and has booted nothing.
      if (application === 'listening' && !settled) {
        settled = true;
        await settleDisk();
      }
      if (isOver()) return;
      publish({ application });
      if (application === 'listening') console.log('holdfast: listening');
    }
    timer = setTimeout(poll, application === 'listening' ? STEADY_POLL_MS : STARTING_POLL_MS);
  };
  const restart = async () => {
    const ended = services.filter(service => service.pid === 0 && isWanted(service));
    await Promise.all(ended.map(service => service.clear()));
    if (report.application !== 'exited') return;
    publish({ application: 'starting' });
    await start(ended);
    await poll();
  };
  if (page && isWantedByHost()) watchAcceptQueues(page, specs);
  if (page) receiveCommands(command => carryOut(command, services, protectedPorts(specs), restart));
  await start(services);
  await poll();
}

await main(process.argv[2] ?? '/etc/holdfast/services.json');
