import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SERVICE_ADDRESS } from '../lib/lab.js';
import { makeUploadBody } from '../lib/traffic.js';
import { BenchHost, GUEST_MAC, ip } from './bench-host.js';
import type { Target } from './loads.js';

const DISCARD = fileURLToPath(new URL('./discard.js', import.meta.url));
const SINK_PORT = 8080;
const FILE_BYTES = 32 << 20;
const UPLOAD_BYTES = 128 << 20;

export interface Guest {
  host: BenchHost;
  target: Target;
  dispose(): Promise<void>;
}

/** A namespace with a veth for a tap: the path at the machine's own speed, where the data path's cost shows most. */
export async function netnsGuest(): Promise<Guest> {
  const host = await BenchHost.create('benchns', [80, SINK_PORT]);
  try {
    const guest = `hf-${host.lab.tag}-g0`;
    await ip(`netns add ${guest}`);
    await ip(`link add tap type veth peer name eth0 netns ${guest}`);
    for (const words of [
      `link set eth0 address ${GUEST_MAC}`,
      `addr add ${SERVICE_ADDRESS}/24 dev eth0`,
      'link set eth0 up',
      'link set lo up',
    ])
      await ip(`-n ${guest} ${words}`);
    await host.attach();
    const file = makeUploadBody(host.lab, FILE_BYTES);
    const root = join(host.lab.dir, 'www');
    mkdirSync(root);
    renameSync(file.path, join(root, 'file'));
    writeFileSync(join(root, '1k'), Buffer.alloc(1024, 'k'));
    const conf = join(host.lab.dir, 'nginx.conf');
    writeFileSync(conf, nginxConf(host.lab.dir, root));
    const stdio = ['ignore', 'ignore', 'inherit'] as const;
    host.lab.spawn(guest, ['nginx', '-c', conf, '-p', host.lab.dir], { stdio: [...stdio] });
    host.lab.spawn(guest, [process.execPath, DISCARD, `${SINK_PORT}`], { stdio: [...stdio] });
    const base = `http://${SERVICE_ADDRESS}`;
    const target = {
      file: `${base}/file`,
      small: `${base}/1k`,
      sink: `${base}:${SINK_PORT}`,
      upload: makeUploadBody(host.lab, UPLOAD_BYTES),
    };
    return { host, target, dispose: () => host.dispose() };
  } catch (error) {
    await host.dispose();
    throw error;
  }
}

const nginxConf = (dir: string, root: string): string =>
  `daemon off; user root; worker_processes 1; pid ${dir}/nginx.pid; error_log ${dir}/nginx.log;
   events { worker_connections 4096; }
   http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; keepalive_timeout 1h;
     open_file_cache max=16 inactive=1h;
     client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f;
     uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
     server { listen 80 backlog=4096; root ${root}; } }`;
