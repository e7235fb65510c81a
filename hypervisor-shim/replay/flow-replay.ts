import { clientAddress, hostPort, type ServiceAddresses, serviceAddress } from '../datapath/addresses.js';
import type { DataPath } from '../datapath/datapath.js';
import { type Flow, OP, RESULT, STATE } from '../datapath/layout.generated.js';
import type { CausalMark, Piece } from '../datapath/log-store.js';
import { addSeq, inSeq, inTotal, UNSET } from '../datapath/positions.js';
import { SpillDamaged, SpilledInput, type SpillFiles } from '../datapath/spill-files.js';
import { EAGAIN, native } from '../native/native.js';
import { divergenceOf } from './divergence.js';
import type { VerdictCode } from './protocol.js';

export const RECEIVE_BUFFER = 8 << 20;
const DISCARD_AT_ONCE = 16 << 20;

export type Outcome =
  | { kind: 'running' }
  | { kind: 'spliced' }
  | { kind: 'closed'; code: VerdictCode; reason: string }
  | { kind: 'lost'; code: VerdictCode; reason: string }
  /** Somebody else gave the connection up meanwhile, and has said so. */
  | { kind: 'given-up' }
  /** The guest refused or reset the connection: try again with a new socket. */
  | { kind: 'retry'; reason: string }
  /** The guest itself was fenced: the whole recovery is void. */
  | { kind: 'fenced' };

const RUNNING: Outcome = { kind: 'running' };

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
  /** Positions of urgent bytes, in order: each is sent as such, for the guest takes it out of the stream. */
  private urgent: bigint[] = [];
  private finished = false;
  private ended = false;
  private readonly spilled: SpilledInput | undefined;
  connected = false;
  /** `performance.now()` of the last begin(), and of the last output. */
  begunAt = 0;
  private spokeAt = 0;
  /** How far it ever came, in bytes of input taken and output put out, and when it came there. */
  private furthest = -1n;
  private movedAt = Number.NaN;
  /** Bytes that the guest must take in or put out again before the splice, as of the beginning. */
  readonly work: number;

  constructor(
    private readonly path: DataPath,
    readonly id: number,
    flow: Flow,
    private readonly service: ServiceAddresses,
    spill?: SpillFiles,
  ) {
    this.flow = flow;
    this.spilled = spill && new SpilledInput(spill, id, flow.generation);
    this.fed = flow.in_base;
    this.swallowed = flow.out_base;
    this.marks = [];
    this.work = Number(flow.in_end - flow.in_base + flow.out_acked - flow.out_base);
  }

  /** A splice may succeed: what the socket has seen of the output is all that the client has. */
  get isRipe(): boolean {
    return this.connected && this.fed >= this.flow.in_end && this.swallowed >= this.flow.out_acked;
  }

  /** Gives the flow to the new guest and sends the SYN. */
  begin(slot: number, epoch: number): Outcome {
    this.begunAt = this.spokeAt = performance.now();
    if (Number.isNaN(this.movedAt)) this.movedAt = this.begunAt;
    const result = this.path.transition(OP.REPLAY, this.id, this.flow.generation, { slot, epoch });
    if (result !== RESULT.DONE) return this.failed('the flow could not be given to the guest');
    const flow = this.path.flow(this.id);
    if (!flow) return { kind: 'closed', code: 'closed', reason: 'gone' };
    this.take(flow);
    this.fed = flow.in_base;
    this.swallowed = flow.out_base;
    this.finished = false;
    this.ended = false;
    this.connected = false;
    this.fd = native.replayConnect(
      clientAddress(flow),
      hostPort(flow.key.rport),
      serviceAddress(flow, this.service),
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
      if (this.waitsForOutput()) return RUNNING;
      const next = this.marks[this.nextMark];
      if (next && next.in < until && next.out > this.swallowed) until = next.in;
      const urgent = this.urgent.find(at => at >= this.fed);
      if (urgent === this.fed) until = urgent + 1n;
      else if (urgent !== undefined && urgent < until) until = urgent;
      let piece: Piece | undefined;
      try {
        piece = this.path.log.input(this.id, this.fed, until) ?? this.spilled?.input(this.fed, until);
      } catch (error) {
        if (error instanceof SpillDamaged)
          return { kind: 'lost', code: 'log-missing', reason: error.message };
        return { kind: 'retry', reason: String(error) };
      }
      if (!piece)
        return { kind: 'lost', code: 'log-missing', reason: `input at ${this.fed} is not in the log` };
      const n = native.sendBytes(this.fd, piece.bytes, piece.offset, piece.length, urgent === this.fed);
      if (n === -EAGAIN) return RUNNING;
      if (n < 0) return { kind: 'retry', reason: `send failed with errno ${-n}` };
      this.fed += BigInt(n);
    }
    if (this.flow.fin_in !== UNSET && this.flow.fin_in === this.fed && !this.finished) {
      // A client that had all and then closed: a server that sees the end too early breaks off its answer.
      if (this.waitsForOutput()) return RUNNING;
      native.shutdownWrite(this.fd);
      this.finished = true;
    }
    return RUNNING;
  }

  /** Whether what comes next was sent only after output that the guest has not yet put out again. */
  private waitsForOutput(): boolean {
    while (this.nextMark < this.marks.length && this.marks[this.nextMark]!.in <= this.fed) {
      if (this.marks[this.nextMark]!.out > this.swallowed) return true;
      this.nextMark++;
    }
    return false;
  }

  /** Swallows regenerated output; the data path compares it. */
  readable(): Outcome {
    for (;;) {
      const n = native.discardInput(this.fd, DISCARD_AT_ONCE);
      if (n === -EAGAIN) break;
      if (n === 0) {
        // The guest's FIN has a position too, and what the client sent after it waits for that.
        if (!this.ended) this.swallowed += 1n;
        this.ended = true;
        break;
      }
      if (n < 0) return this.failed(`receive failed with errno ${-n}`);
      this.swallowed += BigInt(n);
      this.spokeAt = performance.now();
    }
    return this.connected ? this.writable() : RUNNING;
  }

  /** For how long it has come no nearer to its splice, ms: tries that end where an earlier one did are no progress. */
  stoodStill(at: number): number {
    const flow = this.path.flow(this.id);
    const reached = flow?.answered ? flow.g_ack + flow.g_snd_nxt : 0n;
    if (reached > this.furthest) {
      this.furthest = reached;
      this.movedAt = at;
    }
    return at - this.movedAt;
  }

  /** The guest has taken all input, and for `ms` has said nothing, although the client has more than it said. */
  stopsShort(ms: number): boolean {
    const flow = this.path.flow(this.id);
    if (!flow?.answered || flow.g_ack !== inTotal(flow) || flow.g_snd_nxt >= flow.out_acked) return false;
    return performance.now() - this.spokeAt > ms;
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
        if (!flow) return { kind: 'closed', code: 'closed', reason: 'gone' };
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
        return this.path.flow(this.id)?.epoch === 0 ? this.judge() : { kind: 'fenced' };
      default:
        return this.judge();
    }
  }

  /** What the flow's record says about a replay that cannot go on. */
  private judge(): Outcome {
    const flow = this.path.flow(this.id);
    if (!flow || flow.generation !== this.flow.generation)
      return { kind: 'closed', code: 'closed', reason: 'gone' };
    if (flow.in_end !== this.flow.in_end || flow.state !== this.flow.state) this.take(flow);
    if (flow.state === STATE.CLOSED) {
      if (flow.lost) return { kind: 'given-up' };
      return flow.rst_in
        ? { kind: 'closed', code: 'client-reset', reason: 'reset by the client' }
        : { kind: 'closed', code: 'closed', reason: 'closed by both ends' };
    }
    if (flow.state === STATE.DIVERGED) return { kind: 'lost', ...divergenceOf(flow) };
    if (flow.epoch === 0) return { kind: 'retry', reason: 'its process in the guest died again' };
    return RUNNING;
  }

  /** Takes a newer reading of the flow. A mark that was still being written when it was read is out of range: left out. */
  private take(flow: Flow): void {
    this.flow = flow;
    const marks = this.path.log.marks(this.id, flow.marks);
    this.marks = marks.filter(mark => mark.in <= flow.in_end && mark.out <= flow.out_sent);
    this.urgent = this.marks.filter(mark => mark.urgent).map(mark => mark.in);
    this.nextMark = 0;
  }

  close(): void {
    if (this.fd >= 0) native.closeSilently(this.fd);
    this.fd = -1;
  }
}
