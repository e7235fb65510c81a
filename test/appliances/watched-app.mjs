// A server that gives signs of life, until a request blocks its event loop: only in a guest where that is wanted, or the replay of the
// request would block the next guest's, too.
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { heartbeat } from '/opt/holdfast/guest-agent/api/heartbeat.js';

heartbeat();
createServer((request, response) => {
  if (request.url === '/block' && existsSync('/run/may-block'))
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  response.end('alive\n');
}).listen(8081);
