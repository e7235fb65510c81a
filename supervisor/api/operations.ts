import { z } from 'zod';
import { SERVICE_NAME, SERVICE_NAME_IS } from '../config/service-name.js';
import * as schemas from './schemas.js';

/** One operation over HTTP. `response` undefined: it answers with an empty body. */
export interface Operation<
  Params extends z.ZodType = z.ZodType,
  Query extends z.ZodType = z.ZodType,
  Body extends z.ZodType = z.ZodType,
  Response extends z.ZodType | undefined = z.ZodType | undefined,
> {
  method: 'GET' | 'POST';
  /** `{name}` stands for a parameter. */
  path: string;
  summary: string;
  params: Params;
  query: Query;
  body: Body;
  status: number;
  type: 'application/json' | 'application/x-ndjson' | 'text/plain';
  response: Response;
  /** Statuses of its errors, beside 500 and 503. */
  errors: number[];
}

const nothing = z.undefined();
const noQuery = z.strictObject({});
const anyParams = z.object({});
const serviceName = z.string().regex(SERVICE_NAME, { error: `expected ${SERVICE_NAME_IS}` });

function operation<
  Response extends z.ZodType | undefined,
  Params extends z.ZodType = typeof anyParams,
  Query extends z.ZodType = typeof noQuery,
  Body extends z.ZodType = typeof nothing,
>(
  method: Operation['method'],
  path: string,
  summary: string,
  o: { response: Response; params?: Params; query?: Query; body?: Body } & Partial<
    Pick<Operation, 'status' | 'type' | 'errors'>
  >,
): Operation<Params, Query, Body, Response> {
  const { params = anyParams, query = noQuery, body = nothing } = o;
  const rest = {
    status: o.status ?? 200,
    type: o.type ?? ('application/json' as const),
    errors: o.errors ?? [400],
  };
  const described = { method, path, summary, params, query, body, ...rest, response: o.response };
  return described as Operation<Params, Query, Body, Response>;
}

/** The whole control API. Server, client and OpenAPI document all stand on this table. */
export const OPERATIONS = {
  daemon: operation('GET', '/daemon', 'The daemon itself', { response: schemas.daemonStatus }),
  status: operation('GET', '/services', 'Services and their guests', {
    response: z.array(schemas.serviceStatus),
  }),
  protect: operation('POST', '/services', 'Protects one more service; answers when it is protected', {
    body: z.strictObject({
      config: z.string().describe('its configuration, YAML'),
      source: z.string().describe('path of the file it came from: relative paths in it start there'),
    }),
    response: schemas.serviceStatus,
    errors: [400, 409],
  }),
  connections: operation('GET', '/connections', 'Connections and their positions', {
    query: z.strictObject({ service: serviceName.optional() }),
    response: z.array(schemas.connectionStatus),
    errors: [400, 404, 409],
  }),
  drill: operation('POST', '/services/{name}/drill', 'Injects a fault; answers when it is recovered from', {
    params: z.object({ name: serviceName }),
    body: z.strictObject({ fault: z.enum(schemas.DRILL_FAULTS) }),
    response: schemas.recoveryReport,
    errors: [400, 404, 409],
  }),
  migrate: operation(
    'POST',
    '/services/{name}/migrate',
    'Makes the backup the primary; answers when that has ended',
    {
      params: z.object({ name: serviceName }),
      body: schemas.migrationRequest,
      response: schemas.migrationReport,
      errors: [400, 404, 409],
    },
  ),
  abortMigration: operation('POST', '/services/{name}/migrate/abort', 'Takes a migration under way back', {
    params: z.object({ name: serviceName }),
    response: schemas.migrationReport,
    errors: [400, 404, 409],
  }),
  backup: operation('POST', '/services/{name}/backup', 'Commands the backup; answers when that is done', {
    params: z.object({ name: serviceName }),
    body: z.strictObject({
      operation: schemas.backupOperation,
      address: z.string().optional().describe('with `address`: IPv4 with prefix, of the management network'),
      fresh: z.boolean().optional().describe('with `boot`: in place of the one that there is'),
    }),
    response: schemas.backupStatus,
    errors: [400, 404, 409],
  }),
  grants: operation('GET', '/grants', 'What active guests may ask for', {
    query: z.strictObject({ service: serviceName.optional() }),
    response: z.array(schemas.grant),
    errors: [400, 404, 409],
  }),
  grant: operation('POST', '/services/{name}/grants', 'Gives or takes back grants of the active guest', {
    params: z.object({ name: serviceName }),
    body: z.strictObject({
      operations: z.array(schemas.backupOperation).min(1),
      granted: z.boolean().describe('false takes them back'),
    }),
    response: schemas.grant,
    errors: [400, 404, 409],
  }),
  incidents: operation('GET', '/incidents', 'Faults, with their cause, timeline and outcome', {
    query: z.strictObject({ service: serviceName.optional() }),
    response: z.array(schemas.incident),
    errors: [400],
  }),
  incident: operation(
    'GET',
    '/services/{name}/incidents/{id}',
    'One fault, with a verdict for each connection',
    {
      params: z.object({ name: serviceName, id: z.coerce.number<string>().int().min(1) }),
      response: schemas.incidentDetail,
      errors: [400, 404],
    },
  ),
  down: operation('POST', '/down', 'Stops one service, or all, and removes what belongs to it', {
    body: z.strictObject({ service: serviceName.optional() }),
    status: 204,
    response: undefined,
    errors: [400, 404, 409],
  }),
  shutdown: operation('POST', '/shutdown', 'Ends the daemon; services go on as they are', {
    status: 202,
    response: z.object({}),
  }),
  events: operation('GET', '/events', 'The event log, one JSON object a line; a last line may be an Error', {
    query: z.strictObject({
      since: z.coerce.number<string>().int().min(0).default(0).describe('first sequence number'),
      follow: z.enum(['true', 'false']).default('false').describe('go on with new events'),
    }),
    type: 'application/x-ndjson',
    response: schemas.holdfastEvent,
    errors: [400],
  }),
  metrics: operation('GET', '/metrics', 'Metrics in the text format of Prometheus', {
    type: 'text/plain',
    response: z.string(),
  }),
  openapi: operation('GET', '/openapi.json', 'This document', {
    response: z.looseObject({ openapi: z.string() }),
  }),
};

export type OperationName = keyof typeof OPERATIONS;
type Part<
  Name extends OperationName,
  Key extends 'params' | 'query' | 'body',
> = (typeof OPERATIONS)[Name][Key];

/** What the handler of an operation gets, checked. */
export interface Given<Name extends OperationName> {
  params: z.output<Part<Name, 'params'>>;
  query: z.output<Part<Name, 'query'>>;
  body: z.output<Part<Name, 'body'>>;
}

/** What an operation answers with. */
export type Answer<Name extends OperationName> = (typeof OPERATIONS)[Name]['response'] extends infer R extends
  z.ZodType
  ? z.output<R>
  : undefined;
