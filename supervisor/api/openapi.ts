import { z } from 'zod';
import { OPERATIONS, type Operation } from './operations.js';
import { apiError } from './schemas.js';

type Json = Record<string, unknown>;

const ERROR_TEXT: Record<number, string> = {
  400: 'the request or the configuration is wrong',
  404: 'there is no such service or operation',
  409: 'it cannot be done now, or collides with what there is',
  500: 'it failed',
  503: 'the daemon is ending',
};

/** The control API as an OpenAPI 3.1 document, made from the table that the server itself stands on. */
export function openApiDocument(version: string): Json {
  const components: Json = {};
  const paths: Record<string, Json> = {};
  for (const [id, operation] of Object.entries<Operation>(OPERATIONS)) {
    const path = { [operation.method.toLowerCase()]: describe(id, operation, components) };
    paths[operation.path] = { ...paths[operation.path], ...path };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Holdfast control API',
      version,
      description: 'HTTP over the control socket (a Unix socket that only root can open).',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: 'http://localhost', description: 'over the Unix socket' }],
    paths,
    components: { schemas: components },
  };
}

function describe(operationId: string, operation: Operation, components: Json): Json {
  const error = schemaOf(apiError, 'output', components);
  const errors = [...new Set([...operation.errors, 500, 503])].sort();
  const success: Json = { description: operation.summary };
  if (operation.response) {
    success.content = { [operation.type]: { schema: schemaOf(operation.response, 'output', components) } };
  }
  const body = schemaOf(operation.body, 'input', components);
  return {
    operationId,
    summary: operation.summary,
    parameters: [
      ...parameters('path', schemaOf(operation.params, 'input', components)),
      ...parameters('query', schemaOf(operation.query, 'input', components)),
    ],
    ...(operation.method === 'POST' &&
      body.type === 'object' && {
        requestBody: { required: true, content: { 'application/json': { schema: body } } },
      }),
    responses: {
      [operation.status]: success,
      ...Object.fromEntries(
        errors.map(status => [
          status,
          { description: ERROR_TEXT[status], content: { 'application/json': { schema: error } } },
        ]),
      ),
    },
  };
}

function parameters(where: 'path' | 'query', { properties = {}, required = [] }: Json): Json[] {
  return Object.entries(properties as Record<string, Json>).map(([name, schema]) => ({
    name,
    in: where,
    required: where === 'path' || (required as string[]).includes(name),
    schema,
  }));
}

/** JSON schema (2020-12, as OpenAPI 3.1 has it); what has an id goes into `components` and is referred to. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output', components: Json): Json {
  const {
    $schema: _,
    $defs = {},
    ...json
  } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    reused: 'inline',
    override: ({ jsonSchema }) => {
      delete jsonSchema.id;
    },
  }) as Json;
  // A schema with an id is a definition even at the top.
  Object.assign(components, pointing($defs));
  return pointing(json) as Json;
}

/** Schemas of the definitions, at their place in the document. */
function pointing(json: unknown): unknown {
  return JSON.parse(JSON.stringify(json).replaceAll('"#/$defs/', '"#/components/schemas/'));
}
