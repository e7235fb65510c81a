/**
 * The control page: memory shared by the host and one guest, the only definition of its layout. Both sides import this
 * file; the guest's real-time thread (C++) is handed the offsets it needs.
 *
 * Two 4 KiB halves, so that each side writes to its own (and on Xen each can be granted on its own, the host's
 * read-only). Little-endian; a field is aligned to its size and written with one store. Fields that must be seen
 * together lie behind a seqlock: odd while being written. Fields written by different threads have a cache line each.
 * The rest of the page, from `rings.offset`, is for the hook ring and for small per-connection state.
 */
export const PAGE_BYTES = 1 << 20;
export const PAGE_VERSION = 1;
/** 'HFHP' and 'HFGP' in memory order: which half this is. */
export const HOST_MAGIC = 0x50484648;
export const GUEST_MAGIC = 0x50474648;

export interface Field {
  readonly offset: number;
  readonly bytes: 4 | 8 | 16;
}

const u32 = (offset: number): Field => ({ offset, bytes: 4 });
const u64 = (offset: number): Field => ({ offset, bytes: 8 });

/** Written by the host, read by the guest. */
export const host = {
  magic: u32(0x000),
  version: u32(0x004),
  /** Seqlock over `epoch` and `wallClockNs`; a change tells the agent that its clock may be late. */
  activationSeq: u32(0x040),
  /** The guest's epoch, 0 for one that never was active. */
  epoch: u32(0x044),
  /** ns since 1970 when this was written. */
  wallClockNs: u64(0x048),
  /** One of `command`; written before `commandId`. */
  command: u32(0x080),
  /** A change makes the guest carry out `command` once. */
  commandId: u32(0x084),
  /** 1: the host has read `stopping` and cut the guest off. */
  stopAck: u32(0x088),
} as const;

/** Written by the guest, read by the host: hostile until validated. */
export const guest = {
  /** Real-time thread: beats, and the last epoch and command it has acted on. */
  heartbeat: u64(0x1000),
  epochEcho: u32(0x1008),
  commandEcho: u32(0x100c),
  /** `activationSeq` for which it has set its clock. */
  clockEcho: u32(0x1010),
  /** Event loop of the agent; `magic` is written last, when everything else is valid. */
  magic: u32(0x1040),
  version: u32(0x1044),
  userHeartbeat: u64(0x1048),
  /** Seqlock over the rest. */
  reportSeq: u32(0x1080),
  application: u32(0x1084),
  pid: u32(0x1088),
  /** Wait status (see wait(2)) of the service that ended; `EXIT_UNKNOWN` if nobody could collect it. */
  exitStatus: u32(0x108c),
  bootId: { offset: 0x1090, bytes: 16 } satisfies Field as Field,
} as const;

export const rings = { offset: 0x2000, bytes: PAGE_BYTES - 0x2000 } as const;

/**
 * Values of `guest.application`, by index. `waiting`: for the disk that is handed over at a takeover. `stopping`: the guest shuts down,
 * and waits for `host.stopAck` before it ends what holds connections.
 */
export const APPLICATION_STATES = [
  'unknown',
  'starting',
  'listening',
  'exited',
  'waiting',
  'stopping',
] as const;
export type ApplicationState = (typeof APPLICATION_STATES)[number];

/**
 * Values of `host.command`, the faults of drills. `halt`: every vCPU halts with interrupts off; `spin`: every vCPU runs a thread
 * of the highest real-time priority for ever; `reboot`: at once, nothing is stopped; `poweroff`: in good order.
 */
export const command = { none: 0, panic: 1, halt: 2, spin: 3, reboot: 4, poweroff: 5 } as const;
export type CommandName = Exclude<keyof typeof command, 'none'>;

/** Serial number of the disk that is handed over, and the tag of the directory that is shared. */
export const STORAGE_NAME = 'holdfast-data';

export const EXIT_UNKNOWN = 0xffffffff;

/** How often the real-time thread looks at the host's half and beats, ms. */
export const BEAT_MS = 10;
/** The same in a guest that never was active: it must know soon after it is resumed, and costs nothing until then, ms. */
export const BACKUP_BEAT_MS = 2;
/** How often the agent's event loop beats, ms. */
export const USER_BEAT_MS = 50;
/** How long a guest that shuts down waits for `host.stopAck`, ms. */
export const STOP_ACK_MS = 5000;
