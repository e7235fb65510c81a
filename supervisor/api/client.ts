import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import type { z } from 'zod';
import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { splitLines } from '../events/ndjson.js';
import { fromErrorBody } from './http-errors.js';
import { type Answer, OPERATIONS, type OperationName } from './operations.js';
import { checkSocket } from './paths.js';
import type {
  BackupCommand,
  BackupOperation,
  BackupStatus,
  ConnectionStatus,
  ControlOperations,
  DaemonStatus,
  DrillFault,
  Grant,
  HoldfastEvent,
  Incident,
  IncidentDetail,
  MigrationReport,
  MigrationRequest,
  RecoveryReport,
  ServiceStatus,
} from './types.js';

/** What goes with a request. */
interface Sent<Name extends OperationName> {
  params?: z.input<(typeof OPERATIONS)[Name]['params']>;
  query?: z.input<(typeof OPERATIONS)[Name]['query']>;
  body?: z.input<(typeof OPERATIONS)[Name]['body']>;
}

/** The daemon's operations, called over its control socket. Errors arrive as the `HoldfastError` the daemon threw. */
export class ControlClient implements ControlOperations {
  constructor(readonly socketPath: string) {}

  daemon(): Promise<DaemonStatus> {
    return this.#call('daemon', {});
  }

  status(): Promise<ServiceStatus[]> {
    return this.#call('status', {});
  }

  protect(configYaml: string, source: string): Promise<ServiceStatus> {
    return this.#call('protect', { body: { config: configYaml, source } });
  }

  connections(service?: string): Promise<ConnectionStatus[]> {
    return this.#call('connections', { query: service === undefined ? {} : { service } });
  }

  drill(service: string, fault: DrillFault): Promise<RecoveryReport> {
    return this.#call('drill', { params: { name: service }, body: { fault } });
  }

  migrate(service: string, request: MigrationRequest): Promise<MigrationReport> {
    return this.#call('migrate', { params: { name: service }, body: request });
  }

  abortMigration(service: string): Promise<MigrationReport> {
    return this.#call('abortMigration', { params: { name: service } });
  }

  backup(service: string, command: BackupCommand): Promise<BackupStatus> {
    return this.#call('backup', { params: { name: service }, body: command });
  }

  grants(service?: string): Promise<Grant[]> {
    return this.#call('grants', { query: service === undefined ? {} : { service } });
  }

  grant(service: string, operations: readonly BackupOperation[], granted: boolean): Promise<Grant> {
    return this.#call('grant', { params: { name: service }, body: { operations: [...operations], granted } });
  }

  incidents(service?: string): Promise<Incident[]> {
    return this.#call('incidents', { query: service === undefined ? {} : { service } });
  }

  incident(service: string, id: number): Promise<IncidentDetail> {
    return this.#call('incident', { params: { name: service, id: String(id) } });
  }

  metrics(): Promise<string> {
    return this.#call('metrics', {});
  }

  async down(service?: string): Promise<void> {
    await this.#call('down', { body: service === undefined ? {} : { service } });
  }

  async shutdown(): Promise<void> {
    await this.#call('shutdown', {});
  }

  async *events(since: number, follow: boolean, signal: AbortSignal): AsyncGenerator<HoldfastEvent> {
    const query = { since: String(since), follow: follow ? ('true' as const) : ('false' as const) };
    try {
      const response = await this.#open('events', { query }, signal);
      for await (const line of splitLines(response)) {
        const value = parse(line);
        const error = fromErrorBody(value);
        if (error) {
          throw error;
        }
        yield value as HoldfastEvent;
      }
    } catch (error) {
      // The caller's own wish to stop is not an error.
      if (!signal.aborted) {
        throw this.#explain(error);
      }
    }
  }

  async #call<Name extends OperationName>(name: Name, sent: Sent<Name>): Promise<Answer<Name>> {
    try {
      const response = await this.#open(name, sent);
      const text = await readAll(response);
      const { type, response: schema } = OPERATIONS[name];
      const answer = schema === undefined ? undefined : type === 'application/json' ? parse(text) : text;
      return answer as Answer<Name>;
    } catch (error) {
      throw this.#explain(error);
    }
  }

  /** Sends a request and gives the successful response; a failed one is thrown as what it says. */
  async #open<Name extends OperationName>(
    name: Name,
    { params, query, body }: Sent<Name>,
    signal?: AbortSignal,
  ): Promise<IncomingMessage> {
    const { method, path } = OPERATIONS[name];
    const filled = path.replace(/\{(\w+)\}/g, (_, key: string) =>
      encodeURIComponent((params as unknown as Record<string, string>)[key]!),
    );
    const search = new URLSearchParams((query ?? {}) as Record<string, string>).toString();
    const text = method === 'POST' ? JSON.stringify(body ?? {}) : undefined;
    const outgoing = request({
      socketPath: this.socketPath,
      method,
      path: search ? `${filled}?${search}` : filled,
      // Operations last as long as a guest's boot; connections are not shared, so none of them can delay another.
      agent: false,
      headers: text === undefined ? {} : { 'content-type': 'application/json' },
      ...(signal && { signal }),
    });
    outgoing.end(text);
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    // After the response an aborted request still emits its error here.
    outgoing.on('error', () => {});
    response.setEncoding('utf8');
    const status = response.statusCode ?? 0;
    if (status < 300) {
      return response;
    }
    throw fromErrorBody(parse(await readAll(response))) ?? protocolError(`status ${status} without an error`);
  }

  /** Errors of the socket in the operator's terms. */
  #explain(error: unknown): unknown {
    const code = (error as NodeJS.ErrnoException).code;
    if (error instanceof HoldfastError) {
      return error;
    }
    if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') {
      checkSocket(this.socketPath);
      const message = `no daemon answers on ${this.socketPath}`;
      return new HoldfastError('HF_NOT_RUNNING', message, 'Start it with `holdfast up`.', { cause: error });
    }
    if (code === 'EACCES' || code === 'EPERM') {
      const message = `no permission to open ${this.socketPath}`;
      return new HoldfastError('HF_NOT_PERMITTED', message, 'Run the command as root.', { cause: error });
    }
    const message = `the connection to the daemon on ${this.socketPath} broke: ${(error as Error).message}`;
    const remedy =
      'See with `holdfast status` what was done; if the daemon is gone, `holdfast up` adopts what it left.';
    return new HoldfastError('HF_CONNECTION_LOST', message, remedy, { cause: error });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) {
    text += chunk;
  }
  return text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw protocolError(`an answer that is not JSON: ${text.slice(0, 80)}`);
  }
}

function protocolError(what: string): HoldfastError {
  return new HoldfastError(
    'HF_API_PROTOCOL',
    `the daemon sent ${what}`,
    'Restart the daemon so that it has the same version as the command (`holdfast --version`).',
  );
}
