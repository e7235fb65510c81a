import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { errorBody, normalize, requestError } from './http-errors.js';
import { openApiDocument } from './openapi.js';
import { type Answer, type Given, OPERATIONS, type Operation, type OperationName } from './operations.js';
import type { DaemonStatus, HoldfastEvent, SupervisorOperations } from './types.js';

export interface RouteOptions {
  operations: SupervisorOperations;
  daemon: () => DaemonStatus;
  metrics: () => Promise<string>;
  /** Called once the answer to `POST /shutdown` is on its way. */
  onShutdown: () => void;
  /** Aborted when the server closes: ends the event streams. */
  closing: AbortSignal;
  onUnknownError: (error: unknown) => void;
}

type Handler<Name extends OperationName> = (
  given: Given<Name>,
  reply: FastifyReply,
) => Promise<Name extends 'events' ? Readable : Answer<Name>>;

/** One handler per operation; everything that happens is behind `operations`. */
export function addRoutes(app: FastifyInstance, options: RouteOptions): void {
  const { operations } = options;
  const handlers: { [Name in OperationName]: Handler<Name> } = {
    daemon: async () => options.daemon(),
    status: () => operations.status(),
    protect: ({ body }) => operations.protect(body.config, body.source),
    connections: ({ query }) => operations.connections(query.service),
    drill: ({ params, body }) => operations.drill(params.name, body.fault),
    migrate: ({ params, body }) => operations.migrate(params.name, body),
    abortMigration: ({ params }) => operations.abortMigration(params.name),
    backup: ({ params, body }) => operations.backup(params.name, body),
    grants: ({ query }) => operations.grants(query.service),
    grant: ({ params, body }) => operations.grant(params.name, body.operations, body.granted),
    incidents: ({ query }) => operations.incidents(query.service),
    incident: ({ params }) => operations.incident(params.name, params.id),
    down: async ({ body }) => operations.down(body.service) as Promise<undefined>,
    shutdown: async (_given, reply) => {
      reply.raw.once('finish', () => setImmediate(options.onShutdown));
      return {};
    },
    events: async ({ query }, reply) => {
      const gone = new AbortController();
      // Of the answer, not the request: a request is "closed" as soon as it has been read.
      reply.raw.once('close', () => gone.abort());
      const signal = AbortSignal.any([gone.signal, options.closing]);
      const events = operations.events(query.since, query.follow === 'true', signal);
      return Readable.from(eventLines(events, options.onUnknownError));
    },
    metrics: () => options.metrics(),
    openapi: async () => openApiDocument(options.daemon().version) as Answer<'openapi'>,
  };
  for (const [name, handler] of Object.entries(handlers) as [OperationName, Handler<OperationName>][]) {
    const operation: Operation = OPERATIONS[name];
    app.route({
      method: operation.method,
      url: operation.path.replace(/\{(\w+)\}/g, ':$1'),
      handler: async (request, reply) => {
        const given = checkedParts(operation, request);
        reply.code(operation.status).type(operation.type);
        return reply.send(await handler(given as Given<OperationName>, reply));
      },
    });
  }
}

/** The status line is long sent when an event stream fails, so the error is its last line. */
async function* eventLines(events: AsyncIterable<HoldfastEvent>, onUnknownError: (error: unknown) => void) {
  try {
    for await (const event of events) {
      yield `${JSON.stringify(event)}\n`;
    }
  } catch (thrown) {
    const { error, known } = normalize(thrown);
    if (!known) {
      onUnknownError(thrown);
    }
    yield `${JSON.stringify(errorBody(error))}\n`;
  }
}

function checkedParts(operation: Operation, request: FastifyRequest) {
  return {
    params: checked(operation.params, request.params, 'path'),
    query: checked(operation.query, request.query, 'query'),
    // Of an operation that takes none it is not looked at.
    body: operation.body.type === 'undefined' ? undefined : checked(operation.body, request.body, 'body'),
  };
}

/** The value as the schema has it, or `HF_REQUEST_INVALID` naming the part and the field. */
function checked<T>(schema: z.ZodType<T>, value: unknown, part: string): T {
  const result = schema.safeParse(value);
  if (result.success) {
    return result.data;
  }
  const issues = result.error.issues.map(issue => `${[part, ...issue.path].join('.')}: ${issue.message}`);
  throw requestError(issues.join('; '));
}
