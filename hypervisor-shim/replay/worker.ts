/** Worker thread: lives in the replay namespace, and plays all held connections into the new guest at once. */
import { parentPort, workerData } from 'node:worker_threads';
import { clientEndpoint, hostPort } from '../datapath/addresses.js';
import { DataPath } from '../datapath/datapath.js';
import { forgedAcks, openWindow, resetsOfReplay, resetsToClient, resetToGuest } from '../datapath/frames.js';
import { type Flow, OP, STATE, UNLOGGED } from '../datapath/layout.generated.js';
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, native } from '../native/native.js';
import { FlowReplay, type Outcome } from './flow-replay.js';
import { forgetHalfReplayed, isHalfReplayed } from './half-replayed.js';
import { applyMasks } from './masks.js';
import type {
  EndCommand,
  FlowVerdict,
  RecoverCommand,
  VerdictCode,
  WorkerMessage,
  WorkerSetup,
} from './protocol.js';
import { rehearse } from './rehearse.js';

const setup = workerData as WorkerSetup;
const post = (m: WorkerMessage): void => parentPort!.postMessage(m);
const stop = new Int32Array(setup.stop);
const isToEnd = (): boolean => Atomics.load(stop, 0) === 1;
const now = (): number => performance.timeOrigin + performance.now();

/** EPOLLET: an edge is enough, since readable() and writable() go on until EAGAIN. */
const EVENTS = (EPOLLIN | EPOLLOUT | 0x8000_0000) >>> 0;
const RETRY_MS = 50;
const SILENT_MS = 3000;
const WAIT_MS = 1;
/** An ACK of the guest may be all that a splice waits for, and no socket tells of it: ripe replays are tried so often. */
const TRY_RIPE_MS = 5;
/** The others are looked at for what no socket tells either: diverged, closed, more input. */
const TRY_ALL_MS = 50;
/** How often it is looked who stands still; and how many deadlines a recovery may take in all: a hostile guest could let it crawl for ever. */
const LOOK_MS = 250;
const MOST_DEADLINES = 40;
/**
 * Short replays go first, and so many bytes of work are under way at once: the guest's CPU is what they all wait for, and most
 * connections are back long before the longest. A replay that does not get on stops counting after a while.
 */
const WORK_AT_ONCE = 8 << 20;
const COUNTS_FOR_MS = 1000;

/** What goes wrong with one connection is its own affair: the others' recovery goes on. */
function attempt(step: () => Outcome): Outcome {
  try {
    return step();
  } catch (e) {
    return { kind: 'retry', reason: String(e) };
  }
}

class Recovery {
  private readonly running = new Map<number, FlowReplay>();
  /** Of those, which may have come nearer to their splice since it was last tried. */
  private readonly moved = new Set<FlowReplay>();
  /** Shortest last. */
  private readonly waiting: FlowReplay[] = [];
  private readonly retries: { at: number; replay: FlowReplay }[] = [];
  private readonly seen = new Set<string>();
  private readonly events = new Uint32Array(2 * 512);
  private readonly epoll = native.epollCreate();
  private fenced = false;
  private triedRipe = 0;
  private triedAll = 0;
  private readonly begunAt = performance.now();
  private lookedAt = this.begunAt;
  /** When any connection last came nearer to its splice. */
  private movedAt = this.begunAt;
  /** Running replays whose handshake is under way, and the work of those begun of late. */
  private unaccepted = 0;
  private work = 0;
  /** Not yet posted. */
  private verdicts: FlowVerdict[] = [];

  constructor(
    private readonly path: DataPath,
    private readonly command: RecoverCommand,
    private readonly packets: number,
  ) {}

  /**
   * Replays until no held flow is left; flows may still appear, of clients whose handshake's end was on its way. Returns whether the
   * guest was fenced meanwhile.
   */
  run(): boolean {
    try {
      this.replayAll();
      this.report();
      return this.fenced;
    } finally {
      for (const replay of this.running.values()) replay.close();
      native.closeFd(this.epoll);
    }
  }

  private replayAll(): void {
    native.gracePeriod();
    if (this.command.resume) forgetHalfReplayed(this.path, setup, frame => this.toGuest(frame));
    this.collect();
    while (!this.fenced && (this.busy() || this.collect())) {
      if (isToEnd()) throw new Error('it was ended');
      // A second fault: nothing is lost by it, the flows stay held for the next guest.
      this.fenced = this.path.control.slots(this.command.slot).epoch !== this.command.epoch;
      if (this.fenced) break;
      this.launch();
      this.poll();
      for (const replay of this.moved)
        this.settle(
          replay,
          attempt(() => this.next(replay)),
        );
      this.moved.clear();
      this.giveUp();
    }
  }

  /** A SYN that nobody answers for so long met a connection that the guest still holds: its challenge says where to reset it. */
  private next(replay: FlowReplay): Outcome {
    if (replay.connected || performance.now() - replay.begunAt < SILENT_MS) return replay.trySplice();
    return replay.failed('the guest does not answer the replayed connection');
  }

  private busy(): boolean {
    return this.running.size + this.waiting.length + this.retries.length > 0;
  }

  /** Finds held flows that are not known yet. */
  private collect(): boolean {
    let found = false;
    for (const { id, flow } of this.path.flows()) {
      if (flow.state === STATE.CLOSED || (flow.leaves && this.command.gentle)) continue;
      if (this.path.inCurrentEpoch(flow) && !(this.command.resume && isHalfReplayed(flow))) continue;
      const key = `${id}.${flow.generation}`;
      if (this.seen.has(key)) continue;
      this.seen.add(key);
      found = true;
      this.waiting.push(new FlowReplay(this.path, id, flow, setup, spill));
    }
    if (found) this.waiting.sort((a, b) => b.work - a.work);
    return found;
  }

  private toGuest(frame: Buffer): void {
    native.packetSend(this.packets, this.command.guestIfindex, frame);
  }

  private toClient(frames: Buffer[]): void {
    for (const frame of frames) native.packetSend(this.packets, setup.wireIfindex, frame);
  }

  /** The guest may hold an earlier try of the same replay, and would take the next SYN for a stray of that. */
  private forget(replay: FlowReplay): void {
    const flow = this.path.flow(replay.id);
    if (flow && isHalfReplayed(flow) && flow.generation === replay.flow.generation)
      for (const frame of resetsOfReplay(flow, setup)) this.toGuest(frame);
  }

  /** The guest that has it so far may be well, and would hold it for ever. */
  private letGo(flow: Flow): void {
    const { slot } = this.command;
    const owner = this.path.control.slots(flow.owner);
    if (flow.owner !== slot && owner.epoch !== 0)
      native.packetSend(this.packets, owner.ifindex, resetToGuest(flow, setup));
  }

  private launch(): void {
    for (let i = this.retries.length - 1; i >= 0; i--) {
      if (this.retries[i]!.at > now()) continue;
      const { replay } = this.retries.splice(i, 1)[0]!;
      this.forget(replay); // what it acknowledged since has moved the place at which it believes a reset
      this.waiting.push(replay);
    }
    while (this.unaccepted < setup.concurrency && this.work < WORK_AT_ONCE) {
      const replay = this.waiting.pop();
      if (!replay) return;
      if (replay.flow.unlogged) {
        const share = replay.flow.unlogged === UNLOGGED.LOG_SHARE;
        const why = share ? 'its share of the log was used up' : 'the log was full';
        this.lose(replay, 'unprotected', `unprotected since ${why}`);
        continue;
      }
      this.letGo(replay.flow);
      const outcome = attempt(() => {
        applyMasks(this.path, replay.flow, setup.masks);
        const begun = replay.begin(this.command.slot, this.command.epoch);
        if (begun.kind === 'running') native.epollSet(this.epoll, replay.fd, replay.id, EVENTS, true);
        return begun;
      });
      if (outcome.kind === 'running') {
        this.running.set(replay.id, replay);
        this.unaccepted++;
        this.work += replay.work;
      } else this.settle(replay, outcome);
    }
  }

  private poll(): void {
    const n = native.epollWait(this.epoll, this.events, WAIT_MS);
    const at = performance.now();
    if (n === 0 || at > this.triedRipe + TRY_RIPE_MS) {
      this.report();
      this.triedRipe = at;
      const all = at > this.triedAll + TRY_ALL_MS;
      if (all) this.triedAll = at;
      this.work = 0;
      for (const replay of this.running.values()) {
        if (all || replay.isRipe) this.moved.add(replay);
        if (replay.begunAt > at - COUNTS_FOR_MS) this.work += replay.work;
      }
    }
    for (let i = 0; i < n; i++) {
      const replay = this.running.get(this.events[2 * i]!);
      const what = this.events[2 * i + 1]!;
      if (!replay || replay.fd < 0) continue;
      if (what & (EPOLLERR | EPOLLHUP) && native.socketError(replay.fd) !== 0) {
        this.settle(replay, replay.failed('the guest refused or reset the replayed connection'));
        continue;
      }
      let outcome: Outcome = { kind: 'running' };
      if (what & EPOLLOUT) {
        if (!replay.connected) this.unaccepted--;
        outcome = attempt(() => replay.writable());
      }
      if (outcome.kind === 'running' && what & EPOLLIN) outcome = attempt(() => replay.readable());
      if (replay.isRipe) this.moved.add(replay);
      this.settle(replay, outcome);
    }
  }

  private settle(replay: FlowReplay, outcome: Outcome): void {
    if (outcome.kind === 'running') return;
    if (outcome.kind === 'spliced') this.movedAt = performance.now();
    if (this.running.delete(replay.id)) {
      if (!replay.connected) this.unaccepted--;
      this.work -= replay.work;
    }
    this.moved.delete(replay);
    switch (outcome.kind) {
      case 'spliced':
        for (const frame of forgedAcks(replay.flow, setup)) this.toGuest(frame);
        this.toClient([openWindow(replay.flow, setup)]);
        this.verdict(replay.flow, replay.id, 'kept', 'spliced', 'spliced');
        break;
      case 'closed':
      case 'given-up':
        replay.close();
        this.toGuest(resetToGuest(replay.flow, setup));
        if (outcome.kind === 'closed')
          this.verdict(replay.flow, replay.id, 'kept', outcome.code, outcome.reason);
        break;
      case 'lost':
        this.lose(replay, outcome.code, outcome.reason);
        break;
      case 'retry':
        replay.close();
        this.forget(replay);
        this.retries.push({ at: now() + RETRY_MS, replay });
        break;
      case 'fenced':
        replay.close();
        this.fenced = true;
    }
  }

  /** Ends a connection that cannot be kept: both sides learn it at once, nothing is spliced silently. */
  private lose(replay: FlowReplay, code: VerdictCode, reason: string): void {
    replay.close();
    const flow = this.path.flow(replay.id) ?? replay.flow;
    this.path.transition(OP.LOSE, replay.id, flow.generation);
    this.toClient(resetsToClient(flow, setup));
    this.toGuest(resetToGuest(flow, setup));
    this.verdict(flow, replay.id, 'lost', code, reason);
  }

  /** Ends what has stood still for too long. However slow the guest is, a connection that moves is kept, and those that wait for it. */
  private giveUp(): void {
    const at = performance.now();
    if (at < this.lookedAt + LOOK_MS) return;
    this.lookedAt = at;
    const { deadlineMs } = this.command;
    const over = at - this.begunAt > MOST_DEADLINES * deadlineMs;
    const tried = [...this.running.values(), ...this.retries.map(r => r.replay)];
    const late = tried.filter(replay => {
      const still = replay.stoodStill(at);
      if (still === 0) this.movedAt = at;
      return over || still > deadlineMs;
    });
    if (over || at - this.movedAt > deadlineMs) late.push(...this.waiting.splice(0));
    for (const replay of late) {
      const retry = this.retries.findIndex(r => r.replay === replay);
      if (retry >= 0) this.retries.splice(retry, 1);
      const f = this.path.flow(replay.id) ?? replay.flow;
      const where = `input ${f.g_ack} of ${f.in_end} taken, output ${f.g_snd_nxt} of ${f.out_acked} regenerated`;
      const code = replay.stopsShort(deadlineMs / 2) ? 'diverged-shorter' : 'deadline';
      this.settle(replay, { kind: 'lost', code, reason: `no progress for ${deadlineMs} ms (${where})` });
    }
  }

  private verdict(
    f: Flow,
    id: number,
    outcome: FlowVerdict['outcome'],
    code: VerdictCode,
    reason: string,
  ): void {
    this.verdicts.push({
      id,
      client: clientEndpoint(f),
      port: hostPort(f.key.lport),
      outcome,
      code,
      reason,
      inputBytes: Number(f.in_end),
      outputBytes: Number(f.out_sent),
      at: now(),
    });
  }

  /** Many in one message: each costs both threads more than the verdict itself. */
  private report(): void {
    if (this.verdicts.length > 0) post({ type: 'verdicts', verdicts: this.verdicts });
    this.verdicts = [];
  }
}

// Frames are sent from the supervisor's own namespace; only the replay sockets belong to the other one.
const packetSocket = native.packetSocket();
native.enterNetns(setup.namespace);
const path = DataPath.adopt(setup.pinDirectory);
const spill = setup.spillDirectory === undefined ? undefined : path.spillFiles(setup.spillDirectory);
rehearse(path, setup, setup.masks);
parentPort!.on('message', (command: RecoverCommand | EndCommand) => {
  if (command.type === 'end') return end();
  try {
    post({ type: 'done', fenced: new Recovery(path, command, packetSocket).run() });
  } catch (e) {
    post({ type: 'error', message: e instanceof Error ? (e.stack ?? e.message) : String(e) });
  }
});
post({ type: 'ready' });

function end(): void {
  path.close();
  native.closeFd(packetSocket);
  parentPort!.close();
}
