/**
 * The control page: memory shared by the host and one guest, the only definition of its layout. Both sides import this
 * file; the guest's heart (C) is handed the offsets it needs.
 *
 * Two 4 KiB halves, so that each side writes to its own (and on Xen each can be granted on its own, the host's
 * read-only). Little-endian; a field is aligned to its size and written with one store. Fields that must be seen
 * together lie behind a seqlock: odd while being written. Fields written by different processes or threads have a cache line each.
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
  /** How many of the guest's requests have their answer. */
  answered: u32(0x0c0),
  /** A change makes the guest give its management NIC this address, in place of the one that it got so before. */
  addressId: u32(0x0c4),
  /** IPv4, first byte highest; and its prefix. Written before `addressId`. */
  address: u32(0x0c8),
  prefix: u32(0x0cc),
  /** Entries of `crashes` that the host has taken. Its successor goes on from there. */
  crashTail: u64(0x100),
} as const;

/** Written by the guest, read by the host: hostile until validated. */
export const guest = {
  /** The heart, a real-time process: beats, and the last epoch and command it has acted on. */
  heartbeat: u64(0x1000),
  epochEcho: u32(0x1008),
  commandEcho: u32(0x100c),
  /** `activationSeq` for which it has set its clock. */
  clockEcho: u32(0x1010),
  /** How many hearts have begun to beat, and below how many agents have started: what is more than one has followed a death. */
  heartStarts: u32(0x1030),
  /** Event loop of the agent; `magic` is written last, when everything else is valid. */
  magic: u32(0x1040),
  version: u32(0x1044),
  userHeartbeat: u64(0x1048),
  agentStarts: u32(0x1070),
  /** Seqlock over the rest. */
  reportSeq: u32(0x1080),
  application: u32(0x1084),
  pid: u32(0x1088),
  /** Wait status (see wait(2)) of the service that ended; `EXIT_UNKNOWN` if nobody could collect it. */
  exitStatus: u32(0x108c),
  bootId: { offset: 0x1090, bytes: 16 } satisfies Field as Field,
  /** How many requests were made. */
  requested: u32(0x10c0),
  /** The last address it was told; `addressFailed` is written before. */
  addressEcho: u32(0x10c4),
  addressFailed: u32(0x10c8),
  /** Entries of `crashes` ever written; stored after the entry. */
  crashHead: u64(0x1100),
} as const;

/**
 * Requests of the guest (`requests`, in its half) and the host's answers (`answers`, in the host's): two rings, in which the nth stands
 * at place (n - 1) modulo `entries`: its length in bytes, a u32, then so much printable ASCII. It is written before it is counted.
 */
export const ring = {
  requests: 0x1400,
  answers: 0x400,
  entries: 4,
  entryBytes: 256,
  textBytes: 252,
} as const;

/**
 * What the agent tells of each service, at its place in the image's list; in the guest's half. Each word stands for itself, so none is
 * behind the lock. Offsets in an entry:
 */
export const services = {
  ...{ offset: 0x1800, count: 16, entryBytes: 64 },
  /** Longest time between two signs of life that it has declared, ms; 0: none. */
  watchdogMs: 0x00,
  /** Connections that wait to be accepted, when they were last looked at; 0 unless the host wants them looked at. */
  queued: 0x04,
  /** u64, signs of life since it was started. 0: it has given none yet, and need not. */
  signs: 0x08,
  /** u64: a change says that it has accepted something since. */
  accepts: 0x10,
  /** 1: somebody inside has stopped it on purpose; it is no fault, and refuses its clients. */
  stopped: 0x18,
} as const;

/** What a guest may ask for, if it was granted: `backup WORD`, after `address` a blank and an IPv4 address with its prefix. */
export const BACKUP_OPERATIONS = ['boot', 'suspend', 'wake', 'address', 'migrate', 'status'] as const;
export type BackupOperation = (typeof BACKUP_OPERATIONS)[number];

export const rings = { offset: 0x2000, bytes: 0xc0000 - 0x2000 } as const;

/**
 * What the exit watch tells: entry n lies at `offset + n % count * entryBytes`, laid out as in bpf/crash.h. A host that finds more
 * than `count` entries beyond its tail has lost some, and knows it.
 */
export const crashes = { offset: 0xc0000, count: 4096, entryBytes: 64 } as const;

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
 * Values of `host.command`. Faults of drills: `halt`: every vCPU halts with interrupts off; `spin`: every vCPU runs a thread
 * of the highest real-time priority for ever; `reboot`: at once, nothing is stopped; `poweroff`: in good order. Those that follow are
 * carried out by the agent's event loop, on the first service with a protected port: `appKill`: SIGKILL to its process group;
 * `appSegv`: SIGSEGV to its main process; `appWorker`: SIGKILL to that other process of it which has the most connections; `appStop`:
 * SIGTERM to its main process, unannounced, as by an operator's mistake. `restart` is no fault: services that have ended start again.
 */
export const command = {
  ...{ none: 0, panic: 1, halt: 2, spin: 3, reboot: 4, poweroff: 5 },
  ...{ appKill: 6, appSegv: 7, appWorker: 8, appStop: 9, restart: 10 },
} as const;
export type CommandName = Exclude<keyof typeof command, 'none'>;

/** Serial number of the disk that is handed over, and the tag of the directory that is shared. */
export const STORAGE_NAME = 'holdfast-data';

export const EXIT_UNKNOWN = 0xffffffff;

/** How often the heart looks at the host's half and beats, ms. */
export const BEAT_MS = 10;
/** The same in a guest that never was active: it must know soon after it is resumed, and costs nothing until then, ms. */
export const BACKUP_BEAT_MS = 2;
/** How often the agent's event loop beats, ms. */
export const USER_BEAT_MS = 50;
/** How long a guest that shuts down waits for `host.stopAck`, ms. */
export const STOP_ACK_MS = 5000;
