import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { pathToFileURL } from 'node:url';

/** Stands in for the service: files of a known pattern, a sink, and paths that misbehave on purpose. */
export const FILE_BYTES = 4 << 20;
export const SMALL_BYTES = [1024, 16384];

export function fileBody(name: string, bytes: number): Buffer {
  const body = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i += 32)
    createHash('sha256')
      .update(`${name} ${i >> 5}`)
      .digest()
      .copy(body, i);
  return body;
}

function serve(): void {
  const bodies = new Map<string, Buffer>();
  const bodyOf = (path: string): Buffer | undefined => {
    const size = path.startsWith('/small/') ? Number(path.slice(7)) : FILE_BYTES;
    if (!/^\/(files\/\d\d\.bin|small\/\d+)$/.test(path)) return undefined;
    if (!bodies.has(path)) bodies.set(path, fileBody(path, size));
    return bodies.get(path);
  };
  const web = createServer((request, response) => {
    const [, fault, path] = /^\/(corrupt|reset|short)(\/.*)$/.exec(request.url!) ?? [
      undefined,
      undefined,
      request.url!,
    ];
    let body = bodyOf(path);
    if (body === undefined) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-length': body.length });
    if (fault === 'corrupt') {
      body = Buffer.from(body);
      body[body.length >> 1]! ^= 1;
    }
    if (fault === undefined || fault === 'corrupt') return void response.end(body);
    response.write(body.subarray(0, body.length >> 1), () => {
      if (fault === 'reset') request.socket.resetAndDestroy();
      else request.socket.destroy();
    });
  });
  web.keepAliveTimeout = 30_000;
  const sink = createServer((request, response) => {
    const hash = createHash('sha256');
    request.on('data', chunk => hash.update(chunk)).on('end', () => response.end(`${hash.digest('hex')}\n`));
  });
  web.listen(80, () => sink.listen(8080, () => createTcpServer().listen(9, () => console.log('listening'))));
}

if (import.meta.url === pathToFileURL(process.argv[1]!).href) serve();
