import type { Command } from 'commander';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { ControlClient } from '../api/client.js';
import { openApiDocument } from '../api/openapi.js';
import { controlSocket, stateDirectory } from '../api/paths.js';
import type { DaemonStatus, DrillFault, ServiceStatus } from '../api/types.js';
import { parseServiceConfig, readConfigFile } from '../config/config.js';
import { checkedName } from '../config/service-name.js';
import { parseListen } from '../metrics/listener.js';
import { formatReport } from './drill-report.js';
import { formatConnections, formatEvent, formatStatus } from './format.js';
import { formatIncident, formatIncidents } from './incident-report.js';
import { EXIT, type Output } from './output.js';
import { withProgress } from './progress.js';
import type { SupervisorFactory } from './supervisor-factory.js';
import { runningDaemon, spawnDaemon, waitUntilEnded } from './up.js';
import { version } from './version.js';

/** What every command gets. */
export interface CommandContext {
  output: Output;
  createSupervisor: SupervisorFactory;
  socket?: string;
  stateDir?: string;
  metricsListen?: string;
}

/** Runs a command's function with the context that its options make. */
export type Run = (command: Command, action: (context: CommandContext) => Promise<number>) => Promise<void>;

/** `holdfast up`. */
export async function up(context: CommandContext, files: string[], foreground: boolean): Promise<number> {
  const { output } = context;
  // Before anything is started: a mistake in a file leaves nothing behind.
  const configs = await readConfigs(files);
  if (context.metricsListen !== undefined) parseListen(context.metricsListen);
  const client = clientOf(context);
  let ended: Promise<void> | undefined;
  let running = foreground ? undefined : await runningDaemon(client);
  const started = running === undefined;
  if (foreground) {
    ({ ended } = await startDaemon(context, client));
    output.note(`daemon runs in the foreground, pid ${process.pid}`);
  } else if (running) {
    checkOptions(running, context);
    output.note(`daemon already running, pid ${running.pid}`);
  } else {
    running = await spawnDaemon(client, stateDirectory(context.stateDir), context.metricsListen);
    output.note(`daemon started, pid ${running.pid}, state in ${running.stateDir}`);
  }
  const { pid, stateDir } = running ?? (await client.daemon());
  let failed = false;
  try {
    const services = await protectAll(client, output, configs);
    // A new daemon takes over what an earlier one left, before it answers.
    if (started && configs.length === 0) services.push(...(await client.status()));
    const result = { pid, stateDir, socket: client.socketPath, started, services };
    output.result(result, services.length > 0 ? formatStatus(services) : '');
    failed = services.some(({ phase }) => phase === 'failed');
  } catch (error) {
    if (!ended) {
      throw error;
    }
    // In the foreground the daemon goes on for the other services, and for another try.
    output.error(error);
  }
  await ended;
  return failed && !ended ? EXIT.failed : EXIT.ok;
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
  if (service !== undefined) checkedName(service);
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
  if (service !== undefined) checkedName(service);
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

export async function incidents(
  context: CommandContext,
  service: string | undefined,
  id: number | undefined,
): Promise<number> {
  const client = clientOf(context);
  if (service !== undefined) checkedName(service);
  if (service !== undefined && id !== undefined) {
    const found = await client.incident(service, id);
    context.output.result(found, formatIncident(found));
  } else {
    const list = await client.incidents(service);
    context.output.result(list, formatIncidents(list));
  }
  return EXIT.ok;
}

/** Fails if the recovery lost a connection: a script that drills wants to know. */
export async function drill(context: CommandContext, service: string, fault: DrillFault): Promise<number> {
  checkedName(service);
  const client = clientOf(context);
  const report = await withProgress(client, context.output, () => client.drill(service, fault));
  context.output.result(report, formatReport(report));
  return report.lost > 0 ? EXIT.failed : EXIT.ok;
}

export async function metrics(context: CommandContext): Promise<number> {
  const text = await clientOf(context).metrics();
  context.output.result(text, text.trimEnd());
  return EXIT.ok;
}

/** The same document that the daemon of this version serves. */
export async function api(context: CommandContext): Promise<number> {
  const document = openApiDocument(version());
  context.output.result(document, JSON.stringify(document, null, 2));
  return EXIT.ok;
}

/** An option of the daemon's that comes too late is not passed over in silence. */
function checkOptions(running: DaemonStatus, { metricsListen, stateDir }: CommandContext): void {
  const { pid } = running;
  const differ = (wanted: string, has: string) =>
    new HoldfastError(
      'HF_DAEMON_OPTION',
      `${wanted}, but the daemon (pid ${pid}) runs with ${has}`,
      `Leave the option out, or end the daemon alone (\`kill ${pid}\`; services go on) and start it again.`,
    );
  if (metricsListen !== undefined && metricsListen !== running.metricsListen)
    throw differ(`--metrics-listen is ${metricsListen}`, running.metricsListen ?? 'no TCP listener');
  if (stateDir !== undefined && stateDirectory(stateDir) !== running.stateDir)
    throw differ(`--state-dir is ${stateDirectory(stateDir)}`, running.stateDir);
}

export function clientOf(context: CommandContext): ControlClient {
  return new ControlClient(controlSocket(context.socket));
}

/** The server's libraries are loaded only here: they would double the time of every other command. */
async function startDaemon(
  { createSupervisor, stateDir, metricsListen }: CommandContext,
  client: ControlClient,
) {
  const daemon = await import('./daemon.js');
  const { socketPath } = client;
  return daemon.startDaemon({
    stateDir: stateDirectory(stateDir),
    socketPath,
    createSupervisor,
    ...(metricsListen !== undefined && { metricsListen }),
  });
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
