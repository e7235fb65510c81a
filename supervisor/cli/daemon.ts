import { join } from 'node:path';
import { type Logger, levels, pino } from 'pino';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { lockFile } from '../api/lock.js';
import { makeStateDirectory } from '../api/paths.js';
import { ControlSocket } from '../api/server.js';
import { EventLog } from '../events/event-log.js';
import { listenForScrapes, parseListen } from '../metrics/listener.js';
import { Metrics } from '../metrics/metrics.js';
import type { SupervisorFactory } from './supervisor-factory.js';
import { version } from './version.js';

export interface DaemonOptions {
  stateDir: string;
  socketPath: string;
  createSupervisor: SupervisorFactory;
  /** `ADDRESS:PORT` on which metrics are served over TCP. */
  metricsListen?: string;
}

/** What a stuck shutdown may take, ms: what is left undone the next daemon adopts. */
const SHUTDOWN_MS = 15_000;

/**
 * Starts the daemon in this process and returns once its socket answers. `ended` resolves when it was told to stop by a
 * signal or over the socket; guests and data path stay. Only `down` takes services apart.
 */
export async function startDaemon(options: DaemonOptions): Promise<{ ended: Promise<void> }> {
  const { stateDir, socketPath, metricsListen } = options;
  if (metricsListen !== undefined) parseListen(metricsListen);
  const level = logLevel();
  makeStateDirectory(stateDir);
  const socket = await ControlSocket.claim(socketPath);
  if (!lockFile(join(stateDir, 'lock'))) {
    throw new HoldfastError(
      'HF_STATE_IN_USE',
      `a daemon with another control socket already uses the state directory ${stateDir}`,
      'Use that daemon (its --socket), or give this one a state directory of its own with --state-dir.',
    );
  }

  const logFile = pino.destination({ dest: join(stateDir, 'supervisor.log'), sync: true, mode: 0o600 });
  const logger = pino({ level }, logFile);
  // For logrotate; and the end of a terminal must not be the end of the protection.
  process.on('SIGHUP', () => logFile.reopen());
  const eventLog = EventLog.open(stateDir, {
    onError: error => logger.error({ err: error }, 'cannot store an event'),
  });
  surviveErrors(logger, eventLog);

  // Before there are services: it counts their events from the first on.
  const metrics = new Metrics(version(), eventLog);
  const supervisor = await options.createSupervisor({ stateDir, eventLog, logger });
  const scrape = () => metrics.render(supervisor.samples());
  const startedAt = Date.now();
  let end: (reason: string) => void = () => {};
  const told = new Promise<string>(resolve => {
    end = resolve;
  });
  const scrapes =
    metricsListen === undefined
      ? undefined
      : await listenForScrapes(metricsListen, scrape, metrics.contentType);
  await socket.listen({
    operations: supervisor,
    logger,
    daemon: () => ({
      pid: process.pid,
      version: version(),
      stateDir,
      startedAt,
      lastEvent: eventLog.lastSeq,
      metricsListen,
    }),
    metrics: scrape,
    onShutdown: () => end('an operator'),
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => end(signal));
  }
  const details = { pid: process.pid, version: version() };
  eventLog.append(
    'daemon.started',
    undefined,
    `daemon ${details.version} started, pid ${details.pid}`,
    details,
  );
  logger.info({ version: details.version, stateDir, socketPath }, 'daemon started');

  const finish = async (reason: string) => {
    setTimeout(() => {
      logger.fatal(`shutdown took more than ${SHUTDOWN_MS} ms, leaving at once`);
      process.exit(1);
    }, SHUTDOWN_MS).unref();
    socket.refuse();
    eventLog.append(
      'daemon.stopping',
      undefined,
      `daemon ends, told by ${reason}; guests and connections go on`,
    );
    scrapes?.closeAllConnections();
    scrapes?.close();
    await supervisor.shutdown().catch(error => logger.error({ err: error }, 'shutdown of the supervisor'));
    await eventLog.close();
    logger.info({ reason }, 'daemon ended');
    // Last, because who waits for the end of the daemon waits for the socket to vanish.
    await socket.close();
  };
  return { ended: told.then(finish) };
}

function logLevel(): string {
  const level = process.env.HOLDFAST_LOG_LEVEL || 'info';
  if (level in levels.values || level === 'silent') return level;
  throw new HoldfastError(
    'HF_LOG_LEVEL',
    `HOLDFAST_LOG_LEVEL is ${JSON.stringify(level)}, expected debug, info, warn or error`,
    'Set it to one of these, or leave it out.',
  );
}

/**
 * An error nobody caught must not end the process: at the next fault there would be nobody to recover from it. It is
 * loud in log and events instead.
 */
function surviveErrors(logger: Logger, eventLog: EventLog): void {
  for (const kind of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(kind, (error: unknown) => {
      logger.error({ err: error }, kind);
      eventLog.append('daemon.error', undefined, `internal error, the daemon goes on: ${error}`, { error });
    });
  }
}
