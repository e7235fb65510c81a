import { setTimeout as sleep } from 'node:timers/promises';
import { listeningPorts } from './listeners.js';
import type { ControlPage } from './page.js';
import type { Exit, Watched } from './services.js';

/** What a service that is started again may take to listen, ms. */
const LISTEN_MS = 30_000;
const POLL_MS = 20;

type Stoppable = Omit<Watched, 'clear' | 'others'>;

/**
 * Stops services on purpose, and starts them again, for the guest's root (`holdfast-guest stop|start SERVICE`). What a service closes then
 * is closed as it would be anywhere, and its ports refuse: the host is told, and takes it for no fault.
 */
export class PlannedStops {
  #isBusy = false;

  constructor(
    private readonly page: Pick<ControlPage, 'service' | 'wasActivated'>,
    private readonly services: readonly Stoppable[],
    /** All services that should listen do: no recovery is under way. */
    private readonly isCalm: () => boolean,
    private readonly onExit: (exit: Exit) => void,
    private readonly present: () => Set<number> = listeningPorts,
  ) {
    for (const service of services) this.#tell(service);
  }

  /** `ok` or `no`, and words; undefined if that is no request for us. */
  ask(text: string): Promise<string> | undefined {
    const [, verb, name] = /^(stop|start) (.*)$/.exec(text) ?? [];
    if (verb === undefined) return undefined;
    return this.#do(verb, name!).then(
      done => `ok ${done}`,
      (error: Error) => `no ${name}: ${error.message}`,
    );
  }

  async #do(verb: string, name: string): Promise<string> {
    const service = this.services.find(({ spec }) => spec.name === name);
    if (!service)
      throw new Error(`no such service, there are ${this.services.map(s => s.spec.name).join(', ')}`);
    if (this.#isBusy) throw new Error('another one is being stopped or started');
    this.#isBusy = true;
    try {
      return verb === 'stop' ? await this.#stop(service) : await this.#start(service);
    } finally {
      this.#isBusy = false;
    }
  }

  async #stop(service: Stoppable): Promise<string> {
    const { name } = service.spec;
    if (service.isStopped) return `${name} is stopped already`;
    // A backup may take over at any moment, and is to serve then.
    if (!this.page.wasActivated) throw new Error('this is a backup; stop it in the active machine');
    if (!this.isCalm())
      throw new Error('a service does not listen; there may be a recovery, try again after it');
    const done = service.stop();
    this.#tell(service);
    await done;
    return `${name} is stopped; \`holdfast-guest start ${name}\` starts it again`;
  }

  async #start(service: Stoppable): Promise<string> {
    const { name, ports } = service.spec;
    if (!service.isStopped) return `${name} is not stopped`;
    await service.start(this.onExit);
    for (const deadline = performance.now() + LISTEN_MS; ; await sleep(POLL_MS)) {
      if (service.pid === 0)
        throw new Error('it ended at once, and stays stopped; what it said is on the console');
      const present = this.present();
      if (ports.every(port => present.has(port))) break;
      if (performance.now() < deadline) continue;
      await service.stop();
      throw new Error(`it does not listen after ${LISTEN_MS / 1000} s, and was stopped again`);
    }
    service.isBack();
    this.#tell(service);
    return `${name} is started`;
  }

  #tell(service: Stoppable): void {
    const words = this.page.service(this.services.indexOf(service));
    if (words) words.stopped = service.isStopped;
  }
}
