import type { Image } from './image.js';
import { type ClientNamespace, type Lab, SERVICE_ADDRESS, SERVICE_ADDRESS6 } from './lab.js';
import { makeUploadBody, Traffic } from './traffic.js';

/** Transfers last about half a minute: a fault a few seconds in finds all of them far from their end. */
const DOWNLOAD_RATE = 1_200_000;
const UPLOAD_RATE = 900_000;
const UPLOAD_BYTES = 24 << 20;
const REQUESTS_PER_SECOND = 10;
const REQUESTS = 300;
const CLIENT_TIMEOUT_MS = 150_000;

const CLIENT_RECEIVE_BUFFER = 256 << 10;
/**
 * More than the socket buffers of both ends can hold (Linux defaults: 6 MiB to receive, 4 MiB to send): with so much left, the
 * primary's application still had to take part in the transfer when it died.
 */
export const BEYOND_BUFFERS = 11 << 20;
/** A transfer is in flight once so much of it has moved. */
export const IN_FLIGHT = 512 << 10;

/** IPv4 only, or clients of IPv4 and IPv6 by turns. */
export type Families = 'ipv4' | 'both';

/** Traffic against the example appliance at the laboratory's service address. */
export function makeTraffic(
  lab: Lab,
  client: ClientNamespace,
  image: Image,
  timeoutMs: number,
  families: Families = 'ipv4',
): Traffic {
  const target = (host: string) => ({
    httpUrl: `http://${host}`,
    sinkUrl: `http://${host}:8080`,
    files: image.files,
    small: image.small,
  });
  const [four, six] = [target(SERVICE_ADDRESS), target(`[${SERVICE_ADDRESS6}]`)];
  return new Traffic(lab, client, families === 'both' ? [four, six] : [four], timeoutMs);
}

/** Starts `connections` clients, mixed as 20 curl, 5 wget, 10 uploads and 15 keep-alive loops in 50. */
export function startMixedLoad(
  lab: Lab,
  client: ClientNamespace,
  image: Image,
  connections: number,
  families: Families = 'ipv4',
): Traffic {
  const traffic = makeTraffic(lab, client, image, CLIENT_TIMEOUT_MS, families);
  const upload = makeUploadBody(lab, UPLOAD_BYTES);
  const files = [...image.files.keys()];
  const wgets = Math.round(connections / 10);
  const uploads = Math.round(connections / 5);
  const loops = Math.round((connections * 3) / 10);
  const curls = connections - wgets - uploads - loops;
  for (let i = 0; i < curls; i++) traffic.curl(files[i % files.length]!, DOWNLOAD_RATE);
  for (let i = 0; i < wgets; i++) traffic.wget(files[(curls + i) % files.length]!, DOWNLOAD_RATE);
  for (let i = 0; i < uploads; i++) traffic.upload(upload, UPLOAD_RATE);
  for (let i = 0; i < loops; i++) traffic.keepAlive(REQUESTS, REQUESTS_PER_SECOND);
  return traffic;
}

/**
 * Bounds a client's TCP receive buffers, for connections made afterwards. A slow reader with large buffers lets the server be
 * silent for seconds between window updates, which would hide how long a recovery really was.
 */
export async function boundReceiveBuffers(lab: Lab, client: ClientNamespace): Promise<void> {
  const value = `4096 65536 ${CLIENT_RECEIVE_BUFFER}`;
  await lab.exec(client.name, ['sysctl', '-qw', `net.ipv4.tcp_rmem=${value}`]);
}
