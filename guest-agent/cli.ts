/**
 * `holdfast-guest`: what the root of a guest asks of the host, through the agent. The host decides by its grants (`holdfast grant`).
 *
 *   holdfast-guest backup boot|suspend|wake|migrate|status
 *   holdfast-guest backup address ADDRESS/PREFIX
 *
 * And of the agent itself: to stop a service, which is no fault then, and to start it again.
 *
 *   holdfast-guest stop|start SERVICE
 *
 * Exit status: 0 done, 1 refused or failed, 2 wrong usage.
 */
import { connect } from 'node:net';
import { AGENT_SOCKET } from './requests.js';
import { BACKUP_OPERATIONS } from './wire/control-page.js';

const USAGE = `usage: holdfast-guest backup ${BACKUP_OPERATIONS.join('|')} [ADDRESS/PREFIX]
       holdfast-guest stop|start SERVICE`;

function end(status: number, text: string): never {
  (status === 0 ? console.log : console.error)(text);
  process.exit(status);
}

/** As the agent understands it; undefined if the words make none. */
function requestOf(words: string[]): string | undefined {
  const [subject, operation, address] = words;
  if (subject === 'stop' || subject === 'start') return words.length === 2 ? words.join(' ') : undefined;
  const known = BACKUP_OPERATIONS.some(name => name === operation);
  const length = operation === 'address' ? 3 : 2;
  return subject === 'backup' && known && words.length === length && address !== ''
    ? words.join(' ')
    : undefined;
}

function main(words: string[]): void {
  const request = requestOf(words);
  if (request === undefined) end(2, USAGE);
  let answer = '';
  const socket = connect(AGENT_SOCKET, () => socket.write(`${request}\n`)).setEncoding('latin1');
  socket.on('data', text => {
    answer += text;
  });
  socket.on('error', error => end(1, `holdfast-guest: the agent does not answer: ${error.message}`));
  socket.on('end', () => {
    const [, verdict, text = ''] = /^(ok|no) (.*)\n$/.exec(answer) ?? [];
    if (verdict === 'ok') end(0, text);
    end(1, `holdfast-guest: ${verdict === 'no' ? text : 'the agent ended before there was an answer'}`);
  });
}

main(process.argv.slice(2));
