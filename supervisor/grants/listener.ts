import { normalize } from '../api/http-errors.js';
import type { BackupStatus } from '../api/types.js';
import { now } from '../clock.js';
import type { Backup } from '../service/backup.js';
import type { GuestVm } from '../service/guest.js';
import type { Protection } from '../service/protection.js';
import { Pace } from './pace.js';
import { type BackupRequest, parseRequest, quoteRequest } from './request.js';

const POLL_MS = 100;

/** Why a request is not carried out. */
type Refusal = 'malformed' | 'not-granted' | 'not-active';

const REASONS: Record<Refusal, string> = {
  malformed: 'it is no request',
  'not-granted': 'it has no grant for that',
  'not-active': 'only the active guest may command the backup',
};

/**
 * Reads what guests ask for on their control pages (the paper's protocol manager): one request of a guest at a time, each checked
 * against the grants of its service, each refusal an event. All that comes of a request is one of the operations of `Backup`.
 */
export class GrantListener {
  readonly #paces = new WeakMap<GuestVm, Pace>();
  readonly #busy = new WeakSet<GuestVm>();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly p: Protection,
    private readonly backup: Backup,
  ) {}

  start(): void {
    this.#timer = setInterval(() => this.look(), POLL_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** At every guest there is; `at`: ms. */
  look(at = now()): void {
    for (const { guest } of this.p.guests()) {
      if (!this.#busy.has(guest)) this.#lookAt(guest, at);
    }
  }

  #lookAt(guest: GuestVm, at: number): void {
    const pace = this.#paces.get(guest) ?? new Pace();
    this.#paces.set(guest, pace);
    if (!pace.allows(at)) return;
    const { requests } = guest.channel;
    const given = requests.next();
    if (!given) return;
    const request = parseRequest(given.bytes);
    const refusal = this.#judge(guest, request);
    if (refusal) {
      const asked = quoteRequest(given.bytes);
      const data = { guest: guest.name, reason: refusal, asked, skipped: given.skipped };
      this.p.say('grant.refused', `${guest.name} asked for ${asked}: ${REASONS[refusal]}`, data);
      pace.refused(at);
      requests.answer(`no ${REASONS[refusal]}`);
      return;
    }
    this.#busy.add(guest);
    void this.#carryOut(guest, request!)
      .then(text => requests.answer(text))
      .finally(() => {
        pace.served(at);
        this.#busy.delete(guest);
      });
  }

  #judge(guest: GuestVm, request: BackupRequest | undefined): Refusal | undefined {
    const { p } = this;
    if (!request) return 'malformed';
    // A guest that is lost, or was, speaks for nobody.
    if (guest !== p.primary || p.fault) return 'not-active';
    return p.grants.has(request.operation) ? undefined : 'not-granted';
  }

  async #carryOut(guest: GuestVm, { operation, address }: BackupRequest): Promise<string> {
    // A question changes nothing.
    if (operation !== 'status') {
      const data = { guest: guest.name, operation, address };
      this.p.say('grant.used', `${guest.name}: backup ${operation}`, data);
    }
    try {
      return `ok ${describe(await this.backup.command({ operation, address }))}`;
    } catch (thrown) {
      const { error, known } = normalize(thrown);
      // What nobody foresaw may name things of the host's.
      return known ? `no ${error.code}: ${error.message}` : 'no HF_INTERNAL: it failed';
    }
  }
}

/** One line, for the guest. */
export function describe({
  guest,
  state,
  awake,
  managementAddress,
  furtherAddress,
  phase,
}: BackupStatus): string {
  if (guest === undefined) return `there is no backup, the service is ${phase}`;
  const addresses = [managementAddress, furtherAddress].filter(address => address !== undefined);
  return `${guest} is ${awake ? 'awake' : state}, at ${addresses.join(' and ')}; the service is ${phase}`;
}
