import { resetsOfCrashed } from '../../hypervisor-shim/datapath/frames.js';
import { OP, RESULT } from '../../hypervisor-shim/datapath/layout.generated.js';
import {
  type CrashedConnection,
  type CrashedProcess,
  type CrashList,
  describeStatus,
} from '../../hypervisor-shim/guest-channel/crash-list.js';
import { native } from '../../hypervisor-shim/native/native.js';
import { now } from '../clock.js';
import { hostAddresses } from '../config/config.js';
import type { GuestVm } from '../service/guest.js';
import type { Protection } from '../service/protection.js';
import { endLost } from './end-lost.js';
import type { InPlace } from './in-place.js';

/** How often the active guest's page is looked at, ms: one load from memory, as long as nothing has happened. */
const PERIOD_MS = 5;
/** A connection whose process dies so often within `LOOP_MS` kills it by what it says: nobody could serve it. */
const LOOP_TIMES = 4;
const LOOP_MS = 60_000;
/** Processes that a guest says have died are told of so many at most in `LOOP_MS`: the event log is everybody's. */
const TOLD_AT_MOST = 20;

/** Follows what the exit watch of the active guest tells, on its control page: processes that died, and what they had open. */
export class CrashWatch {
  #timer: NodeJS.Timeout | undefined;
  #packets: number | undefined;
  /** Moments of recent deaths, by connection. */
  #deaths = new Map<string, number[]>();
  #told: number[] = [];

  constructor(
    private readonly p: Protection,
    private readonly inPlace: InPlace,
  ) {}

  start(): void {
    this.#packets = native.packetSocket();
    this.#timer = setInterval(() => this.#tick(), PERIOD_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#packets !== undefined) native.closeFd(this.#packets);
    this.#packets = undefined;
  }

  #tick(): void {
    const { primary, leaving, fault } = this.p;
    if (primary && !fault && primary.state === 'active') this.#look(primary);
    if (leaving) this.#look(leaving);
  }

  #look(guest: GuestVm): void {
    const list = guest.channel.takeCrashes();
    if (list.overflow || list.crashes.length > 0) this.#act(guest, list, now());
  }

  #act(guest: GuestVm, { crashes, overflow }: CrashList, at: number): void {
    const { p } = this;
    if (overflow) {
      const detail = `more of ${guest.name} has crashed at once than it can tell`;
      p.guestFailed(guest, 'application-exit', detail, at);
      return;
    }
    const ended = crashes.find((crash): crash is CrashedProcess => crash.kind === 'service');
    if (ended) {
      const detail = `the service in ${guest.name} ended (pid ${ended.pid}, ${describeStatus(ended.status)})`;
      if (guest === p.leaving) {
        p.leavingFailed(guest, detail);
        return;
      }
      this.inPlace.serviceDied(guest, ended.service, detail, at);
      if (p.fault) return;
    }
    let held = 0;
    for (const crash of crashes) {
      if (crash.kind === 'connection') held += this.#hold(guest, crash, at) ? 1 : 0;
      else if (crash.kind !== 'service') this.#tell(guest, crash, at);
    }
    if (held > 0 && guest === p.leaving) p.replayLate();
    else if (held > 0) this.inPlace.request(guest, `a process in ${guest.name} died`, at);
  }

  /** From here on its client is answered by the data path; what is left of it in the guest goes, without a word. */
  #hold(guest: GuestVm, crash: CrashedConnection, at: number): boolean {
    const { path, config } = this.p;
    const found = path.find(crash.family, crash.remote, crash.remotePort, crash.localPort);
    if (!found || !path.inCurrentEpoch(found.flow) || this.#packets === undefined) return false;
    const { id, flow } = found;
    const { generation, epoch } = flow;
    if (path.transition(OP.HOLD, id, generation, { slot: guest.slot, epoch }) !== RESULT.DONE) return false;
    const ends = { guestMac: path.control.guest_mac.slice(0, 6), ...hostAddresses(config) };
    for (const frame of resetsOfCrashed(flow, ends, crash.rcvNxt))
      native.packetSend(this.#packets, guest.ifindex, frame);
    if (!this.#isLoop(`${id}.${generation}`, at)) return true;
    const reason = `its process died ${LOOP_TIMES} times within ${LOOP_MS / 1000} s`;
    endLost(this.p, this.#packets, found, { code: 'crash-loop', reason });
    return false;
  }

  #isLoop(connection: string, at: number): boolean {
    for (const [key, moments] of this.#deaths) if (moments.at(-1)! < at - LOOP_MS) this.#deaths.delete(key);
    const recent = (this.#deaths.get(connection) ?? []).filter(moment => moment > at - LOOP_MS);
    recent.push(at);
    this.#deaths.set(connection, recent);
    return recent.length >= LOOP_TIMES;
  }

  #tell(guest: GuestVm, { kind, pid, status, service }: CrashedProcess, at: number): void {
    this.#told = this.#told.filter(moment => moment > at - LOOP_MS);
    if (this.#told.length >= TOLD_AT_MOST) return;
    this.#told.push(at);
    const what =
      kind === 'told-to-stop' ? 'was told to stop, unannounced, by' : 'a process of a service ended:';
    this.p.say(`guest.application`, `${guest.name}: pid ${pid} ${what} ${describeStatus(status)}`, {
      ...{ guest: guest.name, pid, status, service, kind },
    });
  }
}
