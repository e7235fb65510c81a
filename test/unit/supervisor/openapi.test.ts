import { request } from 'node:http';
import { join } from 'node:path';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import test, { type ExecutionContext } from 'ava';
import { fastify } from 'fastify';
import { pino } from 'pino';
import { addRoutes } from '../../../supervisor/api/routes.js';
import { ControlSocket } from '../../../supervisor/api/server.js';
import { EventLog } from '../../../supervisor/events/event-log.js';
import { Metrics } from '../../../supervisor/metrics/metrics.js';
import { FakeSupervisor } from './fake-supervisor.js';
import { MINIMAL, temporaryFolder } from './helpers.js';
import { laboratory } from './laboratory.js';

interface Answer {
  status: number;
  type: string;
  text: string;
}

interface Document {
  openapi: string;
  paths: Record<string, Record<string, { operationId: string; responses: Record<string, Described> }>>;
  components: { schemas: Record<string, object> };
}
interface Described {
  content?: Record<string, { schema: object }>;
}

/** A daemon's control socket over a fake supervisor, and raw requests to it. */
async function serve(t: ExecutionContext) {
  const dir = temporaryFolder();
  const path = join(dir, 'control.sock');
  const log = EventLog.open(dir);
  const operations = new FakeSupervisor(log);
  const metrics = new Metrics('0', log);
  const socket = await ControlSocket.claim(path);
  const options = {
    operations,
    logger: pino({ enabled: false }),
    daemon: () => ({ pid: 1, version: '0', stateDir: dir, startedAt: 0, lastEvent: log.lastSeq }),
    metrics: () => metrics.render(operations.samples()),
    onShutdown: () => {},
  };
  await socket.listen(options);
  t.teardown(() => socket.close().then(() => log.close()));
  const send = (method: string, url: string, body?: unknown): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-type': 'application/json' };
      const outgoing = request({ socketPath: path, method, path: url, headers }, response => {
        let text = '';
        response.setEncoding('utf8').on('data', chunk => {
          text += chunk;
        });
        response.on('end', () =>
          resolve({
            status: response.statusCode!,
            type: String(response.headers['content-type'] ?? '').split(';')[0]!,
            text,
          }),
        );
      });
      outgoing.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  return { send, options, operations };
}

/** The document's word on what an operation may answer with that status. */
function validatorOf(document: Document, method: string, path: string) {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  const operation = document.paths[path]![method.toLowerCase()]!;
  return ({ status, type }: Answer): ValidateFunction | undefined => {
    const described = operation.responses[String(status)];
    if (!described) throw new Error(`${method} ${path} answers ${status}, which its document does not name`);
    if (!described.content) return undefined;
    if (!described.content[type]) throw new Error(`${method} ${path} answers ${status} with ${type}`);
    return ajv.compile({ ...described.content[type].schema, components: document.components });
  };
}

test('each route is in the document, and nothing else is', async t => {
  const { send, options } = await serve(t);
  const document = JSON.parse((await send('GET', '/openapi.json')).text) as Document;
  const served: string[] = [];
  const app = fastify();
  app.addHook('onRoute', ({ method, url }) => {
    served.push(`${method} ${url.replace(/:(\w+)/g, '{$1}')}`);
  });
  const closing = new AbortController().signal;
  addRoutes(app, { ...options, closing, onUnknownError: () => {} });
  await app.ready();
  const documented = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => `${method.toUpperCase()} ${path}`),
  );
  // HEAD comes with each GET.
  t.deepEqual(documented.sort(), served.filter(route => !route.startsWith('HEAD ')).sort());
  t.true(documented.length >= 10);
});

test('every reference in the document resolves', async t => {
  const { send } = await serve(t);
  const { text } = await send('GET', '/openapi.json');
  const { components } = JSON.parse(text) as Document;
  const references = [...text.matchAll(/"\$ref":"([^"]+)"/g)].map(match => match[1]!);
  t.true(references.length > 10);
  for (const reference of references) {
    const name = /^#\/components\/schemas\/(\w+)$/.exec(reference)?.[1];
    t.true(name !== undefined && name in components.schemas, reference);
  }
});

test('real answers are as the document says, errors too', async t => {
  const { send, operations } = await serve(t);
  operations.lost = 1;
  const document = JSON.parse((await send('GET', '/openapi.json')).text) as Document;
  const asked: [method: string, path: string, status: number, url: string, body?: unknown][] = [
    ['GET', '/daemon', 200, '/daemon'],
    ['POST', '/services', 200, '/services', { config: MINIMAL, source: '/x.yaml' }],
    ['POST', '/services', 409, '/services', { config: MINIMAL, source: '/x.yaml' }],
    ['POST', '/services', 400, '/services', { config: 'name: X', source: '/x.yaml' }],
    ['POST', '/services', 400, '/services', { config: 1 }],
    ['GET', '/services', 200, '/services'],
    ['GET', '/connections', 200, '/connections?service=web'],
    ['GET', '/connections', 500, '/connections?service=broken'],
    ['POST', '/services/{name}/drill', 200, '/services/web/drill', { fault: 'vm-kill' }],
    ['POST', '/services/{name}/drill', 404, '/services/none/drill', { fault: 'vm-kill' }],
    ['POST', '/services/{name}/drill', 400, '/services/web/drill', { fault: 'flood' }],
    ['POST', '/services/{name}/backup', 200, '/services/web/backup', { operation: 'wake' }],
    ['POST', '/services/{name}/backup', 409, '/services/web/backup', { operation: 'migrate' }],
    ['POST', '/services/{name}/migrate', 200, '/services/web/migrate', { drainMs: 100, policy: 'wait' }],
    ['POST', '/services/{name}/migrate', 400, '/services/web/migrate', { drainMs: -1, policy: 'sell' }],
    ['POST', '/services/{name}/migrate/abort', 409, '/services/web/migrate/abort'],
    ['POST', '/services/{name}/backup', 400, '/services/web/backup', { operation: 'sell' }],
    ['GET', '/grants', 200, '/grants'],
    ['POST', '/services/{name}/grants', 200, '/services/web/grants', { operations: ['wake'], granted: true }],
    ['POST', '/services/{name}/grants', 400, '/services/web/grants', { operations: [], granted: true }],
    ['GET', '/incidents', 200, '/incidents?service=web'],
    ['GET', '/incidents', 400, '/incidents?service=/'],
    ['GET', '/services/{name}/incidents/{id}', 200, '/services/web/incidents/17'],
    ['GET', '/services/{name}/incidents/{id}', 404, '/services/web/incidents/18'],
    ['GET', '/services/{name}/incidents/{id}', 400, '/services/web/incidents/0'],
    ['GET', '/events', 200, '/events?since=1'],
    ['GET', '/events', 400, '/events?since=x'],
    ['GET', '/metrics', 200, '/metrics'],
    ['GET', '/openapi.json', 200, '/openapi.json'],
    ['POST', '/down', 400, '/down', { service: 7 }],
    ['POST', '/down', 204, '/down', {}],
    ['POST', '/shutdown', 202, '/shutdown'],
  ];
  for (const [method, path, status, url, body] of asked) {
    const answer = await send(method, url, body);
    t.is(answer.status, status, `${method} ${url}: ${answer.text}`);
    const validate = validatorOf(document, method, path)(answer);
    if (!validate) t.is(answer.text, '');
    else {
      const json = answer.type === 'application/json';
      const values = answer.type.endsWith('ndjson') ? answer.text.trimEnd().split('\n') : [answer.text];
      for (const value of values) {
        const valid = validate(json || answer.type.endsWith('ndjson') ? JSON.parse(value) : value);
        t.true(valid, `${method} ${url}: ${JSON.stringify(validate.errors)}`);
      }
    }
  }
  const named = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => `${method.toUpperCase()} ${path}`),
  );
  t.deepEqual(
    named.filter(route => !asked.some(([method, path]) => route === `${method} ${path}`)),
    [],
    'every operation is asked',
  );
});

test('the validation can fail: an answer that lacks a field does not pass', async t => {
  const { send, operations } = await serve(t);
  const document = JSON.parse((await send('GET', '/openapi.json')).text) as Document;
  operations.status = async () => [{ name: 'web' }] as never;
  const answer = await send('GET', '/services');
  t.false(validatorOf(document, 'GET', '/services')(answer)!(JSON.parse(answer.text)));
});

test('holdfast api prints the same document without a daemon', async t => {
  const { run } = laboratory(t);
  const { code, stdout } = await run('api');
  t.is(code, 0);
  const document = JSON.parse(stdout) as Document;
  t.is(document.openapi, '3.1.0');
  await run('up');
  t.deepEqual(JSON.parse((await run('api', '--json')).stdout), document);
});
