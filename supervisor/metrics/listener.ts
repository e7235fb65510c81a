import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { isIP } from 'node:net';
import { HoldfastError } from '../../hypervisor-shim/errors.js';

/** Throws `HF_METRICS_LISTEN` unless `text` is `ADDRESS:PORT`; an IPv6 address stands in brackets. */
export function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (!isIP(host) || !(port >= 1 && port <= 65535)) {
    throw new HoldfastError(
      'HF_METRICS_LISTEN',
      `--metrics-listen is ${JSON.stringify(text)}, expected an IP address and a port`,
      'Give for instance 127.0.0.1:9420 or [::1]:9420.',
    );
  }
  return { host, port };
}

/** Serves `GET /metrics`, and nothing else, to whoever reaches the address. Throws `HF_METRICS_IN_USE`. */
export async function listenForScrapes(
  listen: string,
  metrics: () => Promise<string>,
  contentType: string,
): Promise<Server> {
  const server = createServer({ requestTimeout: 5000, headersTimeout: 5000, maxHeaderSize: 8192 });
  server.maxConnections = 64;
  server.on('request', (request, response) => {
    if (request.url !== '/metrics' || request.method !== 'GET') {
      response.writeHead(request.url === '/metrics' ? 405 : 404, { connection: 'close' }).end();
      return;
    }
    metrics().then(
      text => response.writeHead(200, { 'content-type': contentType }).end(text),
      () => response.writeHead(500).end(),
    );
  });
  const address = parseListen(listen);
  try {
    server.listen(address);
    await once(server, 'listening');
  } catch (cause) {
    const message = `--metrics-listen: cannot listen on ${listen}: ${(cause as Error).message}`;
    const remedy = 'Give an address of this host and a port that nobody uses (`ss -ltnp` shows who does).';
    throw new HoldfastError('HF_METRICS_IN_USE', message, remedy, { cause });
  }
  return server;
}
