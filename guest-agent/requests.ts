import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { followAddress } from './address.js';
import { RequestRing } from './request-ring.js';
import { ring as layout, USER_BEAT_MS } from './wire/control-page.js';

/** Where `holdfast-guest` finds the agent; for root alone. */
export const AGENT_SOCKET = '/run/holdfast/agent.sock';

/** How often an answer is looked for, while one is awaited, ms. */
const POLL_MS = 20;

/**
 * Carries requests of the guest's root to the host, and what the host wants of the management NIC's address to the kernel. Those that
 * `answerHere` answers, with words as the host would, are for the agent itself.
 */
export function serveRequests(
  page: ArrayBuffer,
  answerHere: (text: string) => Promise<string> | undefined,
): void {
  followAddress(page, USER_BEAT_MS);
  const ring = new RequestRing(page);
  const waiting = new Map<Socket, string>();
  const asked = new Map<Socket, number>();
  let timer: NodeJS.Timeout | undefined;
  const look = () => {
    for (const [socket, text] of waiting) {
      if (ring.isFull) break;
      waiting.delete(socket);
      asked.set(socket, ring.ask(text));
    }
    for (const [socket, id] of asked) {
      const answer = ring.answer(id);
      if (answer === undefined) continue;
      asked.delete(socket);
      socket.end(`${answer}\n`);
    }
    if (waiting.size + asked.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
  const server = createServer(socket => {
    let text = '';
    socket.setEncoding('latin1').on('error', () => {});
    // What was asked is done all the same.
    socket.on('close', () => waiting.delete(socket));
    socket.on('data', chunk => {
      text += chunk;
      const end = text.indexOf('\n');
      if (end < 0 && text.length <= layout.textBytes) return;
      socket.removeAllListeners('data');
      const request = text.slice(0, end < 0 ? layout.textBytes : end);
      const here = answerHere(request);
      if (here !== undefined) return void here.then(answer => socket.end(`${answer}\n`));
      waiting.set(socket, request);
      timer ??= setInterval(look, POLL_MS);
      look();
    });
  });
  server.on('error', error => console.error(`holdfast: ${AGENT_SOCKET}: ${error.message}`));
  mkdirSync(dirname(AGENT_SOCKET), { recursive: true });
  rmSync(AGENT_SOCKET, { force: true });
  server.listen(AGENT_SOCKET, () => chmodSync(AGENT_SOCKET, 0o600));
}
