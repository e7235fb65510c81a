/** Numbers of libvirt's public interface (libvirt-domain.h, virterror.h of 9.0). They are ABI and never change. */
export const libvirt = {
  startPaused: 1,
  affectLive: 1,
  undefineEverything: 1 | 2 | 4 | 16,
  dumpFormatRaw: 0,
  dumpMemoryOnly: 16,
  state: { running: 1, blocked: 2, paused: 3, shutdown: 4, shutoff: 5, crashed: 6, pmsuspended: 7 },
  eventId: { lifecycle: 0, reboot: 1, watchdog: 3 },
  event: {
    defined: 0,
    undefined: 1,
    started: 2,
    suspended: 3,
    resumed: 4,
    stopped: 5,
    shutdown: 6,
    crashed: 8,
  },
  stopped: { shutdown: 0, destroyed: 1, crashed: 2, failed: 5 },
  shutdown: { guest: 1, host: 2 },
  error: { noDomain: 42, operationInvalid: 55 },
} as const;

const suspendReasons = [
  'paused by request',
  'migrated',
  'stopped on an I/O error',
  'stopped by its watchdog',
  'restored paused',
  'paused from a snapshot',
  'paused after a failed call',
];
const stopReasons = [
  'shut down',
  'destroyed by another client of libvirt',
  'crashed',
  'migrated',
  'saved',
  'failed',
  'snapshot',
];

/** Words for the detail of a SUSPENDED event. */
export const suspendReason = (detail: number): string =>
  suspendReasons[detail] ?? `suspended, reason ${detail}`;

/** Words for the detail of a STOPPED event. */
export const stopReason = (detail: number): string => stopReasons[detail] ?? `stopped, reason ${detail}`;
