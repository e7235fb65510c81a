import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/**
 * The addon: kernel facilities that Node lacks, one call each. Calls throw an Error with `errno` and `syscall`;
 * those that say so return a negative errno instead, because they are expected to fail (EAGAIN).
 */
export interface Native {
  /** Loads a BPF object; pins every map and program in `pinDirectory`. `maxEntries` by map name. */
  bpfLoad(objectPath: string, pinDirectory: string, maxEntries: Record<string, number>): void;
  /** Descriptor of a pinned map or program. */
  bpfGet(path: string): number;
  /** Fills `value`; false if the key is absent. `flags`: 4 is BPF_F_LOCK. */
  mapLookup(fd: number, key: Uint8Array, value: Uint8Array, flags: number): boolean;
  /** Fills `next` with the key after `key` (the first for undefined); false at the end. */
  mapNextKey(fd: number, key: Uint8Array | undefined, next: Uint8Array): boolean;
  /** Elements [first, first + count) of an array map into `values`; returns how many were read. */
  arrayScan(fd: number, first: number, bytes: number, at: number, flags: number, ids: Uint32Array): Buffer;
  mapInfo(fd: number): { maxEntries: number; valueSize: number; keySize: number };
  /** Runs a tc program once with `request` as its frame, which it changes in place. */
  programRun(fd: number, request: Uint8Array): number;
  /** Runs a tc program `repeat` times over a frame as if received on `ifindex`; `ns` is the mean of a run. */
  programTest(
    fd: number,
    frame: Uint8Array,
    ifindex: number,
    repeat: number,
  ): { action: number; frame: Buffer; ns: number };
  /** Attaches at clsact ingress, in place of what we attached before. */
  tcAttach(ifindex: number, programFd: number, egress?: boolean): void;
  programStats(fd: number): { runs: number; ns: number };
  /** The kernel measures BPF run times while the returned descriptor is open. */
  enableStats(): number;
  /** Shared mapping of an mmapable BPF map. */
  mapFd(fd: number, bytes: number): ArrayBuffer;
  /** Shared mapping of a file, made and grown as needed (mode 0600). */
  mapFile(path: string, bytes: number): ArrayBuffer;
  /** Moves the calling thread into a network namespace: for worker threads. */
  enterNetns(path: string): void;
  /** Returns when every BPF program that ran at the call has ended. Blocks for 0.1 ms, where sysfs can't be written for some 10 ms. */
  gracePeriod(): void;
  closeFd(fd: number): void;
  /** A connecting socket bound to the client's address, whose SYN carries `isn` (`receiveBuffer` in bytes). */
  replayConnect(
    clientIp: string,
    clientPort: number,
    ip: string,
    port: number,
    isn: number,
    receiveBuffer: number,
  ): number;
  /** Bytes taken, or -errno. */
  sendBytes(fd: number, bytes: Uint8Array, offset: number, length: number, urgent: boolean): number;
  /** Bytes thrown away without a copy, 0 at the end of the stream, or -errno. */
  discardInput(fd: number, max: number): number;
  socketError(fd: number): number;
  shutdownWrite(fd: number): number;
  /** Closes without FIN or RST (TCP repair mode). */
  closeSilently(fd: number): void;
  epollCreate(): number;
  epollSet(epoll: number, fd: number, id: number, events: number, add: boolean): void;
  /** Fills `out` with pairs (id, events); returns their number. */
  epollWait(epoll: number, out: Uint32Array, timeoutMs: number): number;
  packetSocket(): number;
  /** Sends (`packetSend`) and receives frames of one Ethernet type at one interface; never waits. */
  protocolSocket(ifindex: number, type: number): number;
  /** Bytes of the next frame, or -errno. */
  packetReceive(fd: number, out: Uint8Array): number;
  /** For `linkState`, in the caller's network namespace. */
  routeSocket(): number;
  /** Fills `out` with an interface's flags (IFF_*) and packets received, sent, dropped before they were sent: 0 or -errno. */
  linkState(socket: number, ifindex: number, out: Float64Array): number;
  /** Sends one whole frame out of an interface: 0 or -errno. */
  packetSend(fd: number, ifindex: number, frame: Uint8Array): number;
}

export const EAGAIN = 11;
export const EPOLLIN = 1;
export const EPOLLOUT = 4;
export const EPOLLERR = 8;
export const EPOLLHUP = 16;

const addon = fileURLToPath(new URL('./holdfast.node', import.meta.url));

export const native: Native = createRequire(import.meta.url)(addon) as Native;
