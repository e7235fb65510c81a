import { CRASH_FLAG, CRASH_KIND, Crash as Entry } from '../../guest-agent/wire/crash.generated.js';

/** A connection that its guest has given up without a word: nothing more of it leaves there. As the flow table names it. */
export interface CrashedConnection {
  kind: 'connection';
  family: 4 | 6;
  /** 16 bytes; IPv4 in the last four. */
  remote: Uint8Array;
  /** As in the packet: bytes swapped on this host. */
  remotePort: number;
  localPort: number;
  pid: number;
  /** Where the guest's socket, if any is left, believes a reset. */
  rcvNxt: number;
}

/** A process, or the main process of a service, that ended badly (`status` as from wait(2)), or was told to by `status`, a signal. */
export interface CrashedProcess {
  kind: 'process' | 'service' | 'told-to-stop';
  /** Its place in the image's list of services. */
  service: number;
  pid: number;
  status: number;
}

export type Crash = CrashedConnection | CrashedProcess;

export interface CrashList {
  crashes: Crash[];
  /** There were more than there is room for: what is not in the list may have crashed as well. */
  overflow: boolean;
}

/** One entry as a guest wrote it, or undefined if it makes no sense. It is a copy: the guest may write on. */
export function readCrash(page: DataView, at: number): Crash | undefined {
  const bytes = new Uint8Array(page.buffer, page.byteOffset + at, Entry.BYTES).slice();
  const entry = new Entry(new DataView(bytes.buffer));
  const { pid, service, status, family } = entry;
  switch (entry.kind) {
    case CRASH_KIND.CRASH_CONNECTION: {
      if (family !== 4 && family !== 6) return undefined;
      const remote = new Uint8Array(entry.raddr.buffer, entry.raddr.byteOffset, 16);
      if (family === 4 && remote.subarray(0, 12).some(byte => byte !== 0)) return undefined;
      const { rport: remotePort, lport: localPort, rcv_nxt: rcvNxt } = entry;
      return { kind: 'connection', family, remote, remotePort, localPort, pid, rcvNxt };
    }
    case CRASH_KIND.CRASH_PROCESS:
      return { kind: 'process', service, pid, status };
    case CRASH_KIND.CRASH_SERVICE: {
      const told = entry.flags & CRASH_FLAG.CRASH_TOLD_TO_STOP;
      return { kind: told ? 'told-to-stop' : 'service', service, pid, status };
    }
  }
  return undefined;
}

/** A wait status in words: `signal 9`, `exit status 1`. */
export function describeStatus(status: number): string {
  const signal = status & 0x7f;
  return signal === 0 ? `exit status ${(status >> 8) & 0xff}` : `signal ${signal}`;
}
