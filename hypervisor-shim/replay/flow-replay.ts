import type { DataPath } from '../datapath/datapath.js';
import { type Flow, OP, RESULT, STATE } from '../datapath/layout.generated.js';
import type { CausalMark } from '../datapath/log-store.js';
import { addSeq, inSeq, UNSET } from '../datapath/positions.js';
import { EAGAIN, native } from '../native/native.js';

const RECEIVE_BUFFER = 8 << 20;
const DISCARD_AT_ONCE = 16 << 20;

export type Outcome =
  | { kind: 'running' }
  | { kind: 'spliced' }
  | { kind: 'closed'; reason: string }
  | { kind: 'lost'; reason: string }
  /** The guest refused or reset the connection: try again with a new socket. */
  | { kind: 'retry'; reason: string }
  /** The guest itself was fenced: the whole recovery is void. */
  | { kind: 'fenced' };

const RUNNING: Outcome = { kind: 'running' };

/** Dotted IPv4 address of the flow's client. */
export const clientAddress = (f: Flow): string => Array.from(f.key.bytes.subarray(12, 16)).join('.');
export const hostPort = (networkOrder: number): number => ((networkOrder & 0xff) << 8) | (networkOrder >>> 8);

/**
 * One connection's replay: a host kernel socket in the client's place feeds the logged input in causal order and
 * swallows the output that the client has already, until the flow can be spliced.
 *
 *   begin() -> readable()/writable() as the socket says -> trySplice() until the outcome is not `running`
 *
 * The caller owns the loop; this object owns the socket, and closes it silently at the end.
 */
export class FlowReplay {
  fd = -1;
  flow: Flow;
  private fed: bigint;
  private swallowed: bigint;
  private marks: CausalMark[];
  private nextMark = 0;
  private finished = false;
  connected = false;
  /** `performance.now()` of the last begin(). */
  begunAt = 0;

  constructor(
    private readonly path: DataPath,
    readonly id: number,
    flow: Flow,
    private readonly service: { address: string },
  ) {
    this.flow = flow;
    this.fed = flow.in_base;
    this.swallowed = flow.out_base;
    this.marks = [];
  }

  /** Bytes that the guest must take in or put out again before the splice. */
  get work(): number {
    return Number(this.flow.in_end - this.flow.in_base + this.flow.out_acked - this.flow.out_base);
  }

  /** Gives the flow to the new guest and sends the SYN. */
  begin(slot: number, epoch: number): Outcome {
    this.begunAt = performance.now();
    const result = this.path.transition(OP.REPLAY, this.id, this.flow.generation, { slot, epoch });
    if (result !== RESULT.DONE) return this.failed('the flow could not be given to the guest');
    const flow = this.path.flow(this.id);
    if (!flow) return { kind: 'closed', reason: 'gone' };
    this.take(flow);
    this.fed = flow.in_base;
    this.swallowed = flow.out_base;
    this.finished = false;
    this.connected = false;
    this.fd = native.replayConnect(
      clientAddress(flow),
      hostPort(flow.key.rport),
      this.service.address,
      hostPort(flow.key.lport),
      addSeq(inSeq(flow, flow.in_base), -1),
      RECEIVE_BUFFER,
    );
    return RUNNING;
  }

  /** Feeds input as far as the socket takes it and the causal marks allow. */
  writable(): Outcome {
    this.connected = true;
    while (this.fed < this.flow.in_end) {
      let until = this.flow.in_end;
      while (this.nextMark < this.marks.length && this.marks[this.nextMark]!.in <= this.fed) {
        if (this.marks[this.nextMark]!.out > this.swallowed) return RUNNING;
        this.nextMark++;
      }
      const next = this.marks[this.nextMark];
      if (next && next.in < until && next.out > this.swallowed) until = next.in;
      const piece = this.path.log.input(this.id, this.fed, until);
      if (!piece) return { kind: 'lost', reason: `input at ${this.fed} is not in the log` };
      const n = native.sendBytes(this.fd, piece.bytes, piece.offset, piece.length);
      if (n === -EAGAIN) return RUNNING;
      if (n < 0) return { kind: 'retry', reason: `send failed with errno ${-n}` };
      this.fed += BigInt(n);
    }
    if (this.flow.fin_in !== UNSET && this.flow.fin_in === this.fed && !this.finished) {
      native.shutdownWrite(this.fd);
      this.finished = true;
    }
    return RUNNING;
  }

  /** Swallows regenerated output; the data path compares it. */
  readable(): Outcome {
    for (;;) {
      const n = native.discardInput(this.fd, DISCARD_AT_ONCE);
      if (n === -EAGAIN || n === 0) break;
      if (n < 0) return this.failed(`receive failed with errno ${-n}`);
      this.swallowed += BigInt(n);
    }
    return this.connected ? this.writable() : RUNNING;
  }

  /** It can't go on like this: for good, if the flow's record says why; else it is worth another try. */
  failed(reason: string): Outcome {
    const outcome = this.judge();
    return outcome.kind === 'running' ? { kind: 'retry', reason } : outcome;
  }

  /** Splices if the guest stands where the client believes it to stand. */
  trySplice(): Outcome {
    if (!this.connected || this.fed < this.flow.in_end) return this.judge();
    switch (this.path.transition(OP.SPLICE, this.id, this.flow.generation, { in_end: this.flow.in_end })) {
      case RESULT.DONE:
        this.flow = this.path.flow(this.id) ?? this.flow;
        this.close();
        return { kind: 'spliced' };
      case RESULT.MORE_INPUT: {
        const flow = this.path.flow(this.id);
        if (!flow) return { kind: 'closed', reason: 'gone' };
        this.take(flow);
        return this.writable();
      }
      case RESULT.WAIT_INPUT: {
        // A FIN that the client sent meanwhile is input too.
        const flow = this.path.flow(this.id);
        if (flow && flow.fin_in !== this.flow.fin_in) {
          this.take(flow);
          return this.writable();
        }
        return RUNNING;
      }
      case RESULT.WAIT_OUTPUT:
        return RUNNING;
      case RESULT.FENCED:
        return { kind: 'fenced' };
      default:
        return this.judge();
    }
  }

  /** What the flow's record says about a replay that cannot go on. */
  private judge(): Outcome {
    const flow = this.path.flow(this.id);
    if (!flow || flow.generation !== this.flow.generation) return { kind: 'closed', reason: 'gone' };
    if (flow.in_end !== this.flow.in_end || flow.state !== this.flow.state) this.take(flow);
    if (flow.state === STATE.CLOSED) {
      return { kind: 'closed', reason: flow.rst_in ? 'reset by the client' : 'closed by both ends' };
    }
    if (flow.state === STATE.DIVERGED) {
      return { kind: 'lost', reason: `output differs from what was sent, at byte ${flow.diverged_at}` };
    }
    return RUNNING;
  }

  /** Takes a newer reading of the flow. A mark that was still being written when it was read is out of range: left out. */
  private take(flow: Flow): void {
    this.flow = flow;
    const marks = this.path.log.marks(this.id, flow.marks);
    this.marks = marks.filter(mark => mark.in <= flow.in_end && mark.out <= flow.out_sent);
    this.nextMark = 0;
  }

  close(): void {
    if (this.fd >= 0) native.closeSilently(this.fd);
    this.fd = -1;
  }
}
