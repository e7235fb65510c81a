import { Readable } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { errorBody, normalize, requestError } from './http-errors.js';
import type { DaemonStatus, HoldfastEvent, SupervisorOperations } from './types.js';

export interface RouteOptions {
  operations: SupervisorOperations;
  daemon: () => DaemonStatus;
  /** Called once the answer to `POST /shutdown` is on its way. */
  onShutdown: () => void;
  /** Aborted when the server closes: ends the event streams. */
  closing: AbortSignal;
  onUnknownError: (error: unknown) => void;
}

const protectBody = z.strictObject({ config: z.string(), source: z.string() });
const drillBody = z.strictObject({ fault: z.enum(['guest-panic', 'vm-kill']) });
const downBody = z.strictObject({ service: z.string().optional() });
const nameParams = z.object({ name: z.string().min(1) });
const connectionsQuery = z.object({ service: z.string().optional() });
const eventsQuery = z.object({
  since: z.coerce.number().int().min(0).default(0),
  follow: z.enum(['true', 'false']).default('false'),
});

/** One route per operation; everything that happens is behind `operations`. */
export function addRoutes(app: FastifyInstance, options: RouteOptions): void {
  const { operations } = options;

  app.get('/daemon', async () => options.daemon());

  app.get('/services', () => operations.status());

  app.post('/services', request => {
    const { config, source } = checked(protectBody, request.body, 'body');
    return operations.protect(config, source);
  });

  app.get('/connections', request =>
    operations.connections(checked(connectionsQuery, request.query, 'query').service),
  );

  app.post('/services/:name/drill', request => {
    const { name } = checked(nameParams, request.params, 'path');
    return operations.drill(name, checked(drillBody, request.body, 'body').fault);
  });

  app.post('/down', async (request, reply) => {
    await operations.down(checked(downBody, request.body, 'body').service);
    return reply.code(204).send();
  });

  app.post('/shutdown', async (_request, reply) => {
    reply.raw.once('finish', () => setImmediate(options.onShutdown));
    return reply.code(202).send({});
  });

  app.get('/events', (request, reply) => {
    const { since, follow } = checked(eventsQuery, request.query, 'query');
    const gone = new AbortController();
    // Of the answer, not the request: a request is "closed" as soon as it has been read.
    reply.raw.once('close', () => gone.abort());
    const signal = AbortSignal.any([gone.signal, options.closing]);
    const lines = eventLines(operations.events(since, follow === 'true', signal), options.onUnknownError);
    return reply.type('application/x-ndjson').send(Readable.from(lines));
  });
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

/** The value as the schema has it, or `HF_REQUEST_INVALID` naming the part and the field. */
function checked<T>(schema: z.ZodType<T>, value: unknown, part: string): T {
  const result = schema.safeParse(value);
  if (result.success) {
    return result.data;
  }
  const issues = result.error.issues.map(issue => `${[part, ...issue.path].join('.')}: ${issue.message}`);
  throw requestError(issues.join('; '));
}
