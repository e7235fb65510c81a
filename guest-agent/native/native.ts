import { createRequire } from 'node:module';

export interface AgentAddon {
  /** Maps `bytes` of a PCI resource file, shared. Throws with the system call's text. */
  mapPage(path: string, bytes: number): ArrayBuffer;
  /**
   * Loads the exit watch, pinned in `pins` (or finds it there), guards interface `ifindex`, and starts the thread that copies what
   * it tells to the page. Once per process; throws with the verifier's words.
   */
  watchExits(
    object: string,
    pins: string,
    ifindex: number,
    ports: number[],
    page: ArrayBuffer,
    layout: { head: number; entries: number; count: number },
  ): void;
  /** What is in this cgroup is service number `service`, its main process `main` (0: not started). Forgets an earlier end. */
  watchService(
    cgroup: bigint,
    service: number,
    main: number,
    announced: boolean,
    cleanExitCrashes: boolean,
  ): void;
  /**
   * Binds a datagram socket that everybody may write to, in place of an earlier one; `heard`, which must not throw, gets each text with
   * its sender's pid, as the kernel says. For the life of the process. Throws with the system call's text.
   */
  hearNotifications(path: string, heard: (pid: number, text: string) => void): void;
  /** Sends a datagram, or throws: it does not wait for a reader who is late. `@` begins an abstract socket's name. */
  notify(path: string, text: string): void;
}

/** Loaded when first needed: without a control page the agent works without the addon. */
export function loadAddon(): AgentAddon {
  return createRequire(import.meta.url)('./agent.node') as AgentAddon;
}
