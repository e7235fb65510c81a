import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { ControlClient } from '../api/client.js';
import { controlSocket, stateDirectory } from '../api/paths.js';
import type { DrillFault, ServiceStatus } from '../api/types.js';
import { parseServiceConfig, readConfigFile } from '../config/config.js';
import { formatReport } from './drill-report.js';
import { formatConnections, formatEvent, formatStatus } from './format.js';
import { EXIT, type Output } from './output.js';
import { withProgress } from './progress.js';
import type { SupervisorFactory } from './supervisor-factory.js';
import { runningDaemon, spawnDaemon, waitUntilEnded } from './up.js';

/** What every command gets. */
export interface CommandContext {
  output: Output;
  createSupervisor: SupervisorFactory;
  socket?: string;
  stateDir?: string;
}

/** `holdfast up`. */
export async function up(context: CommandContext, files: string[], foreground: boolean): Promise<number> {
  const { output } = context;
  // Before anything is started: a mistake in a file leaves nothing behind.
  const configs = await readConfigs(files);
  const client = clientOf(context);
  let ended: Promise<void> | undefined;
  let running = foreground ? undefined : await runningDaemon(client);
  const started = running === undefined;
  if (foreground) {
    ({ ended } = await startDaemon(context, client));
    output.note(`daemon runs in the foreground, pid ${process.pid}`);
  } else if (running) {
    output.note(`daemon already running, pid ${running.pid}`);
  } else {
    running = await spawnDaemon(client, stateDirectory(context.stateDir));
    output.note(`daemon started, pid ${running.pid}, state in ${running.stateDir}`);
  }
  const { pid, stateDir } = running ?? (await client.daemon());
  try {
    const services = await protectAll(client, output, configs);
    // A new daemon takes over what an earlier one left, before it answers.
    if (started && configs.length === 0) services.push(...(await client.status()));
    const result = { pid, stateDir, socket: client.socketPath, started, services };
    output.result(result, services.length > 0 ? formatStatus(services) : '');
  } catch (error) {
    if (!ended) {
      throw error;
    }
    // In the foreground the daemon goes on for the other services, and for another try.
    output.error(error);
  }
  await ended;
  return EXIT.ok;
}

/** `holdfast daemon`, which `up` runs detached. */
export async function daemon(context: CommandContext): Promise<number> {
  const { ended } = await startDaemon(context, clientOf(context));
  await ended;
  return EXIT.ok;
}

export async function protect(context: CommandContext, files: string[]): Promise<number> {
  const services = await protectAll(clientOf(context), context.output, await readConfigs(files));
  context.output.result(services[0], formatStatus(services));
  return EXIT.ok;
}

/** One service, or all and then the daemon itself. */
export async function down(context: CommandContext, service: string | undefined): Promise<number> {
  const client = clientOf(context);
  const { output } = context;
  const { pid } = await client.daemon();
  await withProgress(client, output, () => client.down(service));
  if (service !== undefined) {
    output.result({ service, daemonEnded: false }, `${service} is down`);
    return EXIT.ok;
  }
  await client.shutdown();
  await waitUntilEnded(client, pid);
  output.result({ service: null, daemonEnded: true }, 'all services are down, the daemon has ended');
  return EXIT.ok;
}

export async function status(context: CommandContext, service: string | undefined): Promise<number> {
  const all = await clientOf(context).status();
  const services = service === undefined ? all : [named(all, service)];
  context.output.result(services, formatStatus(services));
  return EXIT.ok;
}

export async function connections(context: CommandContext, service: string | undefined): Promise<number> {
  const list = await clientOf(context).connections(service);
  context.output.result(list, formatConnections(list));
  return EXIT.ok;
}

export async function events(context: CommandContext, since: number, follow: boolean): Promise<number> {
  const never = new AbortController().signal;
  for await (const event of clientOf(context).events(since, follow, never)) {
    await context.output.line(event, formatEvent(event));
  }
  return EXIT.ok;
}

/** Fails if the recovery lost a connection: a script that drills wants to know. */
export async function drill(context: CommandContext, service: string, fault: DrillFault): Promise<number> {
  const client = clientOf(context);
  const report = await withProgress(client, context.output, () => client.drill(service, fault));
  context.output.result(report, formatReport(report));
  return report.lost > 0 ? EXIT.failed : EXIT.ok;
}

function clientOf(context: CommandContext): ControlClient {
  return new ControlClient(controlSocket(context.socket));
}

/** The server's libraries are loaded only here: they would double the time of every other command. */
async function startDaemon({ createSupervisor, stateDir }: CommandContext, client: ControlClient) {
  const daemon = await import('./daemon.js');
  const { socketPath } = client;
  return daemon.startDaemon({ stateDir: stateDirectory(stateDir), socketPath, createSupervisor });
}

type ConfigText = Awaited<ReturnType<typeof readConfigFile>>;

/** Reads and checks all files; the daemon gets the text and its absolute path, and parses it again itself. */
async function readConfigs(files: readonly string[]): Promise<ConfigText[]> {
  const configs = await Promise.all(files.map(readConfigFile));
  for (const { text, source } of configs) {
    parseServiceConfig(text, source);
  }
  return configs;
}

async function protectAll(client: ControlClient, output: Output, configs: readonly ConfigText[]) {
  const services: ServiceStatus[] = [];
  // One by one: two guests that boot at once on a small host miss deadlines that each alone would meet.
  for (const { text, source } of configs) {
    services.push(await withProgress(client, output, () => client.protect(text, source)));
  }
  return services;
}

function named(all: readonly ServiceStatus[], name: string): ServiceStatus {
  const service = all.find(candidate => candidate.name === name);
  if (!service) {
    const known = all.map(candidate => candidate.name).join(', ') || 'none';
    const remedy = `Give one of the services there are: ${known}.`;
    throw new HoldfastError('HF_SERVICE_UNKNOWN', `there is no service ${JSON.stringify(name)}`, remedy);
  }
  return service;
}
