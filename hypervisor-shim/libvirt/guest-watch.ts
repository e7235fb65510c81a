import type { GuestEvent } from '../hypervisor.js';
import { libvirt, stopReason, suspendReason } from './constants.js';
import type { RawEvent } from './event-worker.js';
import { watchProcess } from './pidfd.js';

/** How long libvirt may take to say why a process ended before its end alone counts as `gone`. */
const explanationMs = 4;

interface Watched {
  /** `ended`: reported, or not worth a report; what else is said of this run is an echo. */
  phase: 'running' | 'ending' | 'ended';
  stop?: (() => void) | undefined;
  timer?: NodeJS.Timeout;
}

/**
 * Turns what libvirt says and what becomes of the QEMU processes into guest events, each fault once. Libvirt knows
 * *why* a guest ended, the process watch works even when libvirtd is dead: whichever is first reports.
 */
export class GuestWatch {
  readonly #guests = new Map<string, Watched>();

  constructor(
    private readonly emit: (event: GuestEvent) => void,
    private readonly pidOf: (name: string) => Promise<number | undefined>,
  ) {}

  /** Follows the process of a guest that is on. Call it for guests that ran before we came. */
  async follow(name: string): Promise<void> {
    this.#forget(name);
    const watched: Watched = { phase: 'running' };
    this.#guests.set(name, watched);
    const pid = await this.pidOf(name);
    if (pid === undefined || this.#guests.get(name) !== watched) return;
    watched.stop = watchProcess(pid, atNs => this.#processEnded(name, watched, pid, atNs));
    if (!watched.stop) this.#processEnded(name, watched, pid, process.hrtime.bigint());
  }

  isFollowed(name: string): boolean {
    return this.#guests.get(name)?.phase === 'running';
  }

  /** Its end is asked for. Returns how to take that back. */
  expectEnd(name: string): () => void {
    const watched = this.#guests.get(name);
    if (watched?.phase !== 'running') return () => {};
    watched.phase = 'ending';
    return () => {
      if (watched.phase === 'ending') watched.phase = 'running';
    };
  }

  /** libvirt, asked, says that the guest is off: whatever ended it was missed. */
  foundOff(name: string): void {
    this.#ended(name, 'gone', 'off when libvirt was asked again', process.hrtime.bigint());
  }

  /** Takes one event of libvirt's. */
  event(raw: RawEvent): void {
    const { source, domain, event, atNs } = raw;
    if (source === 'reboot') this.emit({ guest: domain, kind: 'reboot', detail: 'rebooted', atNs });
    else if (source === 'lifecycle') this.#lifecycle(raw);
    else this.emit({ guest: domain, kind: 'watchdog', detail: `watchdog action ${event}`, atNs });
  }

  #lifecycle({ domain, event, detail, atNs }: RawEvent): void {
    const say = (kind: GuestEvent['kind'], text: string) =>
      this.emit({ guest: domain, kind, detail: text, atNs });
    const { event: is, stopped, shutdown } = libvirt;
    switch (event) {
      case is.started:
        void this.follow(domain);
        say('started', 'started');
        break;
      case is.suspended:
        say('suspended', suspendReason(detail));
        break;
      case is.resumed:
        say('resumed', 'resumed');
        break;
      case is.crashed:
        say('panicked', detail === 0 ? 'kernel panic (pvpanic)' : 'kernel panic, crash kernel loaded');
        break;
      case is.shutdown:
        // From inside. By a signal to QEMU from the host it would be `gone`, which follows as `stopped`.
        if (detail === shutdown.guest)
          this.#ended(domain, 'shutdown', 'shut down or rebooted from inside', atNs);
        break;
      case is.stopped:
        if (detail === stopped.destroyed && this.#guests.get(domain)?.phase === 'ending')
          this.#forget(domain);
        else this.#ended(domain, 'gone', `QEMU ended: ${stopReason(detail)}`, atNs);
        break;
    }
  }

  /** Stops watching everything. */
  close(): void {
    for (const name of [...this.#guests.keys()]) this.#forget(name);
  }

  #processEnded(name: string, watched: Watched, pid: number, atNs: bigint): void {
    watched.timer = setTimeout(() => {
      if (this.#guests.get(name) === watched) {
        this.#ended(name, 'gone', `QEMU (pid ${pid}) ended`, atNs);
      }
    }, explanationMs);
  }

  #ended(name: string, kind: 'gone' | 'shutdown', detail: string, atNs: bigint): void {
    const watched = this.#guests.get(name);
    const asked = watched?.phase !== 'running';
    if (watched) watched.phase = 'ended';
    if (!asked) this.emit({ guest: name, kind, detail, atNs });
  }

  #forget(name: string): void {
    const watched = this.#guests.get(name);
    clearTimeout(watched?.timer);
    watched?.stop?.();
    this.#guests.delete(name);
  }
}
