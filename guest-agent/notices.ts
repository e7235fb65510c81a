import type { Cgroup } from './cgroup.js';
import { type AgentAddon, loadAddon } from './native/native.js';
import type { ControlPage, ServiceWords } from './page.js';
import type { ServiceSpec } from './services.js';

const DIRECTORY = '/run/holdfast';

interface Heard {
  words: ServiceWords;
  socket: string;
  watchdogMs: number;
}

/**
 * What services say of themselves, by the protocol of sd_notify(3), so that programs that know systemd's watchdog need not be changed: each
 * service that asks for it has a datagram socket, of which its environment tells it. What comes from outside its cgroup is not heard.
 */
export class Notices {
  readonly #heard = new Map<number, Heard>();

  constructor(
    private readonly page: Pick<ControlPage, 'service'>,
    private readonly addon: Pick<AgentAddon, 'hearNotifications'> = loadAddon(),
  ) {}

  /** Listens for service number `index`, if it asks for that. What cannot be done is told on the console. */
  hear(spec: ServiceSpec, index: number, cgroup: Pick<Cgroup, 'has'>): void {
    const { name, watchdogMs } = spec;
    const words = this.page.service(index);
    if (watchdogMs === undefined || words === undefined) return;
    const socket = `${DIRECTORY}/notify.${name}`;
    try {
      this.addon.hearNotifications(socket, (pid, text) => {
        if (cgroup.has(pid)) take(text, words);
      });
    } catch (error) {
      console.error(`holdfast: ${name}: no watchdog: ${(error as Error).message}`);
      return;
    }
    words.watchdogMs = watchdogMs;
    this.#heard.set(index, { words, socket, watchdogMs });
  }

  /** It is about to start: gives what it is to find in its environment, undefined if it is not listened to. */
  begin(index: number): Record<string, string> | undefined {
    const heard = this.#heard.get(index);
    if (heard === undefined) return undefined;
    const { words, socket, watchdogMs } = heard;
    words.begin();
    words.watchdogMs = watchdogMs;
    return { NOTIFY_SOCKET: socket, WATCHDOG_USEC: `${watchdogMs * 1000}` };
  }
}

/** One message: lines of `KEY=value`, of which only these are understood. */
function take(text: string, words: ServiceWords): void {
  for (const line of text.split('\n')) {
    const [, usec] = /^WATCHDOG_USEC=(\d{1,16})$/.exec(line) ?? [];
    if (usec !== undefined) words.watchdogMs = Number(usec) / 1000;
    else if (line === 'WATCHDOG=1' || line === 'READY=1') words.sign();
  }
}
