import { execFileSync, spawn } from 'node:child_process';
import { existsSync, constants as files, mkdirSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as wire from './wire/control-page.js';

const FILES = {
  program: fileURLToPath(new URL('../bin/holdfast-heart', import.meta.url)),
  /** Both on a file system that does not outlive the machine's boot. */
  lock: '/run/holdfast/heart.lock',
  commands: '/run/holdfast/commands',
};
/** Loading it is a drill. */
const HALT_MODULE = fileURLToPath(new URL('../holdfast-halt.ko', import.meta.url));
/** Between the end of a heart and the start of another, ms: not a busy loop, should it fail at once. */
const PAUSE_MS = 100;
/** The clock is set only if it is off by more, ms. */
const CLOCK_TOLERANCE_MS = 100;
/** SIGRTMIN+4 makes systemd power off (systemd(1)); in an appliance process 1 is holdfast-init. */
const POWER_OFF_SIGNAL = existsSync('/run/systemd/system') ? 38 : constants.signals.SIGUSR2;

/** One beats, and one waits for its end: in a busy guest no event loop is fast enough to start the next. */
const HEARTS = 2;

/**
 * Sees to it, for ever, that a real-time process beats on the page (native/heart.c), one of ours or of an earlier agent's, and another
 * waits. Thus the agent's death leaves the heart beating, and the heart's death leaves the next one and the agent.
 */
export function keepHeart(page: string, { program, lock, commands } = FILES): void {
  mkdirSync(dirname(commands), { recursive: true });
  if (!existsSync(commands)) execFileSync('mkfifo', ['-m', '600', commands]);
  const { host, guest } = wire;
  const numbers = {
    heartbeat: guest.heartbeat.offset,
    epochEcho: guest.epochEcho.offset,
    commandEcho: guest.commandEcho.offset,
    clockEcho: guest.clockEcho.offset,
    starts: guest.heartStarts.offset,
    activationSeq: host.activationSeq.offset,
    epoch: host.epoch.offset,
    wallClockNs: host.wallClockNs.offset,
    command: host.command.offset,
    commandId: host.commandId.offset,
    ...wire.command,
    beatMs: wire.BEAT_MS,
    backupBeatMs: wire.BACKUP_BEAT_MS,
    clockToleranceMs: CLOCK_TOLERANCE_MS,
    powerOffSignal: POWER_OFF_SIGNAL,
  };
  const words = { agent: process.pid, page, lock, commands, haltModule: HALT_MODULE, ...numbers };
  const argv = Object.entries(words).map(([name, value]) => `${name}=${value}`);
  const start = () => {
    const heart = spawn(program, argv, { stdio: ['ignore', 'inherit', 'inherit'], detached: true });
    const again = (why: string) => {
      console.error(`holdfast: the heart ended: ${why}`);
      setTimeout(start, PAUSE_MS);
    };
    heart.once('exit', (code, signal) => again(signal ?? `status ${code}`));
    heart.once('error', error => heart.pid === undefined && again(error.message));
  };
  for (let n = 0; n < HEARTS; n++) start();
}

/**
 * Calls `carryOut` with each command of the host's that its heart leaves to the agent, those that came while there was no agent, too.
 * Call it after `keepHeart`.
 */
export function receiveCommands(
  carryOut: (command: number) => void,
  commands: string = FILES.commands,
): void {
  // For writing as well: it has no end when the last heart does.
  const fd = openSync(commands, files.O_RDWR | files.O_NONBLOCK);
  let rest = Buffer.alloc(0);
  new Socket({ fd, writable: false }).on('data', data => {
    rest = Buffer.concat([rest, data]);
    for (; rest.length >= 4; rest = rest.subarray(4)) carryOut(rest.readUInt32LE());
  });
}
