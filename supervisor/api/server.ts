import { once } from 'node:events';
import { lstatSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { type FastifyInstance, type FastifyReply, fastify } from 'fastify';
import type { Logger } from 'pino';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { errorBody, normalize, requestError, statusOf } from './http-errors.js';
import { lockFile } from './lock.js';
import { checkSocketPath, makeSocketDirectory } from './paths.js';
import { addRoutes } from './routes.js';
import type { DaemonStatus, SupervisorOperations } from './types.js';

export interface ControlServerOptions {
  operations: SupervisorOperations;
  logger: Logger;
  daemon: () => DaemonStatus;
  metrics: () => Promise<string>;
  onShutdown: () => void;
}

/**
 * The control socket: HTTP over a Unix socket that only root can open. First `claim` the path (so that a second daemon stops
 * before it touches anything), then `listen`.
 */
export class ControlSocket {
  #app: FastifyInstance | undefined;
  #shuttingDown = false;
  readonly #closing = new AbortController();

  private constructor(
    readonly path: string,
    private readonly release: () => void,
  ) {}

  /**
   * Takes the path, from a dead daemon if need be. Throws `HF_ALREADY_RUNNING` if a live one has it, `HF_SOCKET_PATH` if
   * something else is there, which stays.
   */
  static async claim(path: string): Promise<ControlSocket> {
    makeSocketDirectory(path);
    const check = () => checkSocketPath(path, lstatSync(path, { throwIfNoEntry: false }));
    check();
    const release = lockFile(`${path}.lock`);
    if (!release) {
      throw alreadyRunning(path);
    }
    if (await answers(path)) {
      release();
      throw alreadyRunning(path);
    }
    try {
      check();
      rmSync(path, { force: true });
    } catch (error) {
      release();
      throw error;
    }
    return new ControlSocket(path, release);
  }

  async listen(options: ControlServerOptions): Promise<void> {
    const { logger } = options;
    const app = fastify({
      logger: false,
      // A path that cannot be decoded comes to no route, and to no handler of errors.
      frameworkErrors: (error, _request, reply) => {
        const { error: known } = normalize(error);
        // Of the type it is declared with, nothing is known here.
        (reply as unknown as FastifyReply).code(statusOf(known)).send(errorBody(known));
      },
    });
    const onUnknownError = (error: unknown) =>
      logger.error({ err: error }, 'unexpected error in an event stream');
    app.setErrorHandler((thrown, request, reply) => {
      const { error, known } = normalize(thrown);
      const { method, url } = request;
      if (known) {
        logger.warn({ method, url, code: error.code, reason: error.message }, 'operation refused or failed');
      } else {
        logger.error({ method, url, err: thrown }, 'unexpected error in an operation');
      }
      return reply.code(statusOf(error)).send(errorBody(error));
    });
    app.setNotFoundHandler((request, reply) =>
      reply.code(404).send(errorBody(requestError(`no operation ${request.method} ${request.url}`))),
    );
    app.addHook('onRequest', async () => {
      if (this.#shuttingDown) {
        const remedy = 'Wait until it has ended, then start it again with `holdfast up`.';
        throw new HoldfastError('HF_SHUTTING_DOWN', 'the daemon is ending', remedy);
      }
    });
    addRoutes(app, { ...options, closing: this.#closing.signal, onUnknownError });
    await app.ready();
    // The socket is bound within the call: it never exists with wider permissions.
    const umask = process.umask(0o177);
    try {
      app.server.listen(this.path);
    } finally {
      process.umask(umask);
    }
    await once(app.server, 'listening');
    this.#app = app;
  }

  /** From now on new requests get `HF_SHUTTING_DOWN`. */
  refuse(): void {
    this.#shuttingDown = true;
  }

  /** Ends all streams and requests and removes the socket. */
  async close(): Promise<void> {
    this.refuse();
    this.#closing.abort();
    this.#app?.server.closeAllConnections();
    await this.#app?.close();
    this.release();
  }
}

function alreadyRunning(path: string): HoldfastError {
  return new HoldfastError(
    'HF_ALREADY_RUNNING',
    `a daemon is already running on ${path}`,
    'Use it as it is (`holdfast status`), or end it first with `holdfast down`.',
  );
}

/** Whether somebody accepts connections there; a socket file that nobody listens on refuses. */
async function answers(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
