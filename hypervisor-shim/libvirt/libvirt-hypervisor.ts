import { EventEmitter } from 'node:events';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../errors.js';
import type { Guest, GuestEvent, GuestSpec, Hypervisor } from '../hypervisor.js';
import { type Accelerator, chooseAccelerator, type TrialBoot } from './accelerator.js';
import type { Arguments, Calls, Operation } from './calls.js';
import { LibvirtConnection } from './connection.js';
import { domainXml } from './domain-xml.js';
import { subscribe, type Unsubscribe } from './event-loop.js';
import { openGivenUri } from './given-uri.js';
import { GuestWatch } from './guest-watch.js';
import { LibvirtError } from './libvirt-error.js';
import { type GuestHost, LibvirtGuest } from './libvirt-guest.js';
import { PrivateDaemon } from './private-daemon.js';
import { readPidFile } from './processes.js';

export interface ConnectOptions {
  /** Where the private daemon keeps everything, and the accelerator's trial its answer. */
  stateDir: string;
  /** A libvirt that runs already; without it, a private daemon is adopted or started. */
  uri?: string;
  /** Boot by which KVM is tried, once. Without it KVM is used only if remembered or forced. */
  trial?: TrialBoot;
}

/** Calls that may be made twice, so are repeated when the connection died under them. */
const repeatable: ReadonlySet<Operation> = new Set([
  'suspend',
  'resume',
  'state',
  'exists',
  'list',
  'vcpuTimeNs',
  'describe',
]);

/** How long a call waits for the connection to come back, ms. */
const reconnectMs = 10_000;

/** QEMU through libvirt. Guests and a private daemon outlive `close()`; `stop()` ends them. */
export class LibvirtHypervisor
  extends EventEmitter<{ guest: [GuestEvent] }>
  implements Hypervisor, GuestHost
{
  readonly kind = 'qemu';
  readonly #watch = new GuestWatch(
    event => this.emit('guest', event),
    name => this.pidOf(name),
  );
  #unsubscribe: Unsubscribe | undefined;
  #reconnecting: Promise<void> | undefined;
  #closed = false;

  private constructor(
    readonly accel: Accelerator,
    readonly uri: string,
    private readonly options: ConnectOptions,
    private readonly connection: LibvirtConnection,
    private daemon: PrivateDaemon | undefined,
  ) {
    super();
  }

  /** Rejects with `LibvirtError` or the errors of `PrivateDaemon.ensure` and `chooseAccelerator`. */
  static async connect(options: ConnectOptions): Promise<LibvirtHypervisor> {
    const { stateDir, uri, trial } = options;
    const accel = await chooseAccelerator({ directory: stateDir, ...(trial && { trial }) });
    const daemon = uri === undefined ? await PrivateDaemon.ensure(stateDir) : undefined;
    const where = uri ?? (daemon as PrivateDaemon).uri;
    const connection = await (uri === undefined ? LibvirtConnection.open(where) : openGivenUri(uri));
    const hypervisor = new LibvirtHypervisor(accel, where, options, connection, daemon);
    try {
      await hypervisor.#attach();
    } catch (error) {
      await hypervisor.close();
      throw error;
    }
    return hypervisor;
  }

  async define(spec: GuestSpec): Promise<Guest> {
    const xml = domainXml(spec, { accel: this.accel });
    if ((await this.call('define', spec.name, xml)) === 'running') {
      throw new HoldfastError(
        'HF_GUEST_RUNNING',
        `guest '${spec.name}' is running and cannot be defined anew`,
        'Destroy it first, or choose another name.',
      );
    }
    return new LibvirtGuest(this, spec.name);
  }

  async lookup(name: string): Promise<Guest | undefined> {
    return (await this.call('exists', name)) ? new LibvirtGuest(this, name) : undefined;
  }

  async list(): Promise<string[]> {
    return (await this.call('list')).map(({ name }) => name);
  }

  /** Lets go of libvirt; guests and private daemon go on. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#watch.close();
    await this.#unsubscribe?.();
    await this.connection.close();
  }

  /** Closes and, if the daemon is private, ends it and all its guests. */
  async stop(): Promise<void> {
    await this.close();
    await this.daemon?.stop();
  }

  async call<O extends Operation>(operation: O, ...args: Arguments<O>): Promise<ReturnType<Calls[O]>> {
    try {
      return await this.connection.call(operation, ...args);
    } catch (error) {
      const again = error instanceof LibvirtError && error.connectionLost && repeatable.has(operation);
      if (!again || this.#closed) throw error;
      await Promise.race([this.#reconnect(), sleep(reconnectMs, undefined, { ref: false })]);
      return this.connection.call(operation, ...args);
    }
  }

  expectEnd(name: string): () => void {
    return this.#watch.expectEnd(name);
  }

  /** libvirt has no call for it, but writes a pid file beside its socket. */
  pidOf(name: string): Promise<number | undefined> {
    const socket = /[?&]socket=([^&]*)/.exec(this.uri)?.[1];
    const runDirectory = socket ? dirname(decodeURIComponent(socket)) : '/run/libvirt';
    return readPidFile(join(runDirectory, 'qemu', `${name}.pid`));
  }

  /** Hears of events first and asks for the state after, so that nothing falls in between. */
  async #attach(): Promise<void> {
    this.#unsubscribe = await subscribe(this.uri, {
      event: raw => this.#watch.event(raw),
      lost: () => void this.#reconnect(),
    });
    for (const { name, state } of await this.connection.call('list')) {
      if (state === 'shutoff') {
        if (this.#watch.isFollowed(name)) this.#watch.foundOff(name);
      } else if (!this.#watch.isFollowed(name)) {
        await this.#watch.follow(name);
      }
    }
  }

  #reconnect(): Promise<void> {
    this.#reconnecting ??= this.#reattach().finally(() => {
      this.#reconnecting = undefined;
    });
    return this.#reconnecting;
  }

  /** Until it works: the process watch goes on meanwhile, so no guest is unwatched. */
  async #reattach(): Promise<void> {
    for (let pauseMs = 20; !this.#closed; pauseMs = Math.min(pauseMs * 2, 1000)) {
      try {
        await this.#unsubscribe?.();
        this.#unsubscribe = undefined;
        if (this.daemon) this.daemon = await PrivateDaemon.ensure(this.options.stateDir);
        await this.#attach();
        if (this.#closed) await (this.#unsubscribe as Unsubscribe | undefined)?.();
        return;
      } catch {
        await sleep(pauseMs, undefined, { ref: false });
      }
    }
  }
}
