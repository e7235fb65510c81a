/** Worker thread: lives in the replay namespace, and plays all held connections into the new guest at once. */
import { parentPort, workerData } from 'node:worker_threads';
import { DataPath } from '../datapath/datapath.js';
import { forgedAcks, resetToClient, resetToGuest } from '../datapath/frames.js';
import { type Flow, OP, STATE } from '../datapath/layout.generated.js';
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, native } from '../native/native.js';
import { clientAddress, FlowReplay, hostPort, type Outcome } from './flow-replay.js';
import { forgetHalfReplayed, isHalfReplayed } from './half-replayed.js';
import { applyMasks } from './masks.js';
import type { FlowVerdict, RecoverCommand, WorkerMessage, WorkerSetup } from './protocol.js';

const setup = workerData as WorkerSetup;
const post = (m: WorkerMessage): void => parentPort!.postMessage(m);
const now = (): number => performance.timeOrigin + performance.now();

/** EPOLLET: an edge is enough, since readable() and writable() go on until EAGAIN. */
const EVENTS = (EPOLLIN | EPOLLOUT | 0x8000_0000) >>> 0;
const RETRY_MS = 50;
const WAIT_MS = 1;
/**
 * Short replays go first, and so many bytes of work are under way at once: the guest's CPU is what they all wait for, and most
 * connections are back long before the longest. A replay that does not get on stops counting after a while.
 */
const WORK_AT_ONCE = 8 << 20;
const COUNTS_FOR_MS = 1000;

class Recovery {
  private readonly running = new Map<number, FlowReplay>();
  private readonly waiting: FlowReplay[] = [];
  private readonly retries: { at: number; replay: FlowReplay }[] = [];
  private readonly seen = new Set<string>();
  private readonly events = new Uint32Array(2 * 512);
  private readonly epoll = native.epollCreate();
  private readonly ends: { guestMac: Uint8Array; address: Uint8Array };
  private fenced = false;

  constructor(
    private readonly path: DataPath,
    private readonly command: RecoverCommand,
    private readonly packets: number,
  ) {
    this.ends = { guestMac: setup.guestMac, address: Uint8Array.from(setup.address.split('.'), Number) };
  }

  /** Replays until no held flow is left; flows may still appear, of clients whose handshake's end was on its way. */
  run(): boolean {
    const deadline = now() + this.command.deadlineMs;
    native.gracePeriod();
    if (this.command.resume) forgetHalfReplayed(this.path, this.ends, frame => this.toGuest(frame));
    this.collect();
    while (!this.fenced && (this.busy() || this.collect())) {
      // A second fault: nothing is lost by it, the flows stay held for the next guest.
      this.fenced = this.path.control.slots(this.command.slot).epoch !== this.command.epoch;
      if (this.fenced) break;
      this.launch();
      this.poll();
      for (const replay of [...this.running.values()]) this.settle(replay, replay.trySplice());
      if (now() > deadline) this.giveUp();
    }
    for (const replay of this.running.values()) replay.close();
    native.closeFd(this.epoll);
    return this.fenced;
  }

  private busy(): boolean {
    return this.running.size + this.waiting.length + this.retries.length > 0;
  }

  /** Finds held flows that are not known yet. */
  private collect(): boolean {
    let found = false;
    for (const { id, flow } of this.path.flows()) {
      const key = `${id}.${flow.generation}`;
      if (flow.state === STATE.CLOSED || this.seen.has(key)) continue;
      if (this.path.inCurrentEpoch(flow) && !(this.command.resume && isHalfReplayed(flow))) continue;
      this.seen.add(key);
      found = true;
      this.waiting.push(new FlowReplay(this.path, id, flow, setup));
    }
    this.waiting.sort((a, b) => a.work - b.work);
    return found;
  }

  private toGuest(frame: Buffer): void {
    native.packetSend(this.packets, this.command.guestIfindex, frame);
  }

  private launch(): void {
    for (let i = this.retries.length - 1; i >= 0; i--) {
      if (this.retries[i]!.at <= now()) this.waiting.push(this.retries.splice(i, 1)[0]!.replay);
    }
    const recent = performance.now() - COUNTS_FOR_MS;
    let unaccepted = 0;
    let work = 0;
    for (const r of this.running.values()) {
      if (!r.connected) unaccepted++;
      if (r.begunAt > recent) work += r.work;
    }
    while (unaccepted < setup.concurrency && work < WORK_AT_ONCE) {
      const replay = this.waiting.shift();
      if (!replay) return;
      work += replay.work;
      try {
        applyMasks(this.path, replay.flow, setup.masks);
        const outcome = replay.begin(this.command.slot, this.command.epoch);
        if (outcome.kind === 'running') {
          this.running.set(replay.id, replay);
          native.epollSet(this.epoll, replay.fd, replay.id, EVENTS, true);
          unaccepted++;
        } else this.settle(replay, outcome);
      } catch (e) {
        this.settle(replay, { kind: 'retry', reason: String(e) });
      }
    }
  }

  private poll(): void {
    const n = native.epollWait(this.epoll, this.events, WAIT_MS);
    for (let i = 0; i < n; i++) {
      const replay = this.running.get(this.events[2 * i]!);
      const what = this.events[2 * i + 1]!;
      if (!replay || replay.fd < 0) continue;
      if (what & (EPOLLERR | EPOLLHUP) && native.socketError(replay.fd) !== 0) {
        this.settle(replay, replay.failed('the guest refused or reset the replayed connection'));
        continue;
      }
      let outcome: Outcome = { kind: 'running' };
      if (what & EPOLLOUT) outcome = replay.writable();
      if (outcome.kind === 'running' && what & EPOLLIN) outcome = replay.readable();
      this.settle(replay, outcome);
    }
  }

  private settle(replay: FlowReplay, outcome: Outcome): void {
    if (outcome.kind === 'running') return;
    this.running.delete(replay.id);
    switch (outcome.kind) {
      case 'spliced':
        for (const frame of forgedAcks(replay.flow, this.ends)) this.toGuest(frame);
        this.verdict(replay.flow, replay.id, 'kept', 'spliced');
        break;
      case 'closed':
        replay.close();
        this.toGuest(resetToGuest(replay.flow, this.ends));
        this.verdict(replay.flow, replay.id, 'kept', outcome.reason);
        break;
      case 'lost':
        this.lose(replay, outcome.reason);
        break;
      case 'retry':
        replay.close();
        this.retries.push({ at: now() + RETRY_MS, replay });
        break;
      case 'fenced':
        replay.close();
        this.fenced = true;
    }
  }

  /** Ends a connection that cannot be kept: both sides learn it at once, nothing is spliced silently. */
  private lose(replay: FlowReplay, reason: string): void {
    replay.close();
    const flow = this.path.flow(replay.id) ?? replay.flow;
    this.path.transition(OP.CLOSE, replay.id, flow.generation);
    native.packetSend(this.packets, setup.wireIfindex, resetToClient(flow, this.ends));
    this.toGuest(resetToGuest(flow, this.ends));
    this.verdict(flow, replay.id, 'lost', reason);
  }

  private giveUp(): void {
    const late = [...this.running.values(), ...this.waiting, ...this.retries.map(r => r.replay)];
    this.running.clear();
    this.waiting.length = this.retries.length = 0;
    for (const replay of late) {
      const f = this.path.flow(replay.id) ?? replay.flow;
      const where = `input ${f.g_ack} of ${f.in_end} taken, output ${f.g_snd_nxt} of ${f.out_acked} regenerated`;
      this.lose(replay, `not replayed within ${this.command.deadlineMs} ms (${where})`);
    }
  }

  private verdict(f: Flow, id: number, outcome: FlowVerdict['outcome'], reason: string): void {
    post({
      type: 'verdict',
      verdict: {
        id,
        client: `${clientAddress(f)}:${hostPort(f.key.rport)}`,
        port: hostPort(f.key.lport),
        outcome,
        reason,
        inputBytes: Number(f.in_end),
        outputBytes: Number(f.out_sent),
        at: now(),
      },
    });
  }
}

// Frames are sent from the supervisor's own namespace; only the replay sockets belong to the other one.
const packetSocket = native.packetSocket();
native.enterNetns(setup.namespace);
const path = DataPath.adopt(setup.pinDirectory);
parentPort!.on('message', (command: RecoverCommand) => {
  try {
    post({ type: 'done', fenced: new Recovery(path, command, packetSocket).run() });
  } catch (e) {
    post({ type: 'error', message: e instanceof Error ? (e.stack ?? e.message) : String(e) });
  }
});
post({ type: 'ready' });
