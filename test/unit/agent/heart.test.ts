import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { command, guest, host } from '../../../guest-agent/wire/control-page.js';
import { waitFor } from '../../lib/run.js';

const folder = mkdtempSync(join(tmpdir(), 'hf-heart-'));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));
const program = join(folder, 'heart');
const page = join(folder, 'page');
const script = join(folder, 'agent.mjs');
const children: ChildProcess[] = [];
test.after.always(() => {
  for (const child of children) child.kill('SIGKILL');
  for (const pid of hearts()) process.kill(pid, 'SIGKILL');
});

const fifo = join(folder, 'commands');
const obeyed = join(folder, 'obeyed');

/** An agent as far as its heart goes: keeps one of the program, with the layout as keepHeart gives it, and notes what it is told. */
const AGENT = `
import { appendFileSync } from 'node:fs';
import { keepHeart, receiveCommands } from '${join(process.cwd(), 'build/guest-agent/heart.js')}';
keepHeart('${page}', { program: '${program}', lock: '${join(folder, 'lock')}', commands: '${fifo}' });
receiveCommands(command => appendFileSync('${obeyed}', command + '\\n'), '${fifo}');
`;

const field = (offset: number) => readFileSync(page).readUInt32LE(offset);
const beats = () => field(guest.heartbeat.offset);

/** Pids of the hearts that run for this page. */
function hearts(): number[] {
  const all = execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' });
  const lines = all.split('\n').filter(line => line.includes(`${program} `));
  return lines.map(line => Number(line.trim().split(' ')[0]));
}

const comm = (pid: number) => readFileSync(`/proc/${pid}/comm`, 'utf8').trim();

function startAgent(): ChildProcess {
  const child = spawn(process.execPath, [script], { stdio: 'ignore' });
  children.push(child);
  return child;
}

const many = (count: number) =>
  waitFor(`${count} hearts`, 20_000, () => hearts().length === count || undefined, 20);

/** As the host says it on the page. */
function tell(word: number): void {
  const fd = openSync(page, 'r+');
  const write = (offset: number, value: number) => writeSync(fd, Uint32Array.of(value), 0, 4, offset);
  write(host.command.offset, word);
  write(host.commandId.offset, field(host.commandId.offset) + 1);
  closeSync(fd);
}

const passedOn = (words: number[]) =>
  waitFor(`the commands ${words}`, 20_000, () => {
    const got = existsSync(obeyed) ? readFileSync(obeyed, 'utf8') : '';
    return got === words.map(word => `${word}\n`).join('') || undefined;
  });

async function beating(): Promise<void> {
  const before = beats();
  await waitFor('a beat', 20_000, () => beats() !== before || undefined, 10);
}

test('one heart beats; it outlives its agent, and its end does not end the beat', async t => {
  execFileSync('gcc', ['-O2', '-static', '-o', program, 'guest-agent/native/heart.c']);
  writeFileSync(page, Buffer.alloc(1 << 20));
  writeFileSync(script, AGENT);

  const first = startAgent();
  await beating();
  await many(2);
  t.is(field(guest.heartStarts.offset), 1, 'the other waits');
  tell(command.restart);
  await passedOn([command.restart]);
  const old = hearts().find(pid => comm(pid) === 'heart-beating')!;

  first.kill('SIGKILL');
  await many(1);
  await beating();
  t.deepEqual(hearts(), [old], 'the agent is dead, its heart beats');
  tell(command.appKill);
  await waitFor('the heart to obey', 20_000, () => field(guest.commandEcho.offset) === 2 || undefined);

  const second = startAgent();
  await many(3);
  await beating();
  t.is(field(guest.heartStarts.offset), 1, 'those of the second agent wait');
  await passedOn([command.restart, command.appKill]);

  for (const starts of [2, 3]) {
    // The first time another agent's, then one of its own, which it replaces.
    process.kill(hearts().find(pid => comm(pid) === 'heart-beating')!, 'SIGKILL');
    await waitFor('the next heart', 20_000, () => field(guest.heartStarts.offset) === starts || undefined, 5);
    await beating();
    await many(2);
  }
  const third = startAgent();
  await many(4);
  third.kill('SIGKILL');
  await many(2);
  await beating();
  second.kill('SIGKILL');
});
