import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { ErrorBody } from './types.js';

/** Documented in `holdfast --help`. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/**
 * HTTP status and exit status by the shape of the code; the first that fits counts. What the caller got wrong is 4xx, and 2 where
 * the command line or the configuration must be changed; what went wrong here is 5xx.
 */
const MEANINGS: [code: RegExp, status: number, exit: number][] = [
  [/^HF_CONFIG_CONFLICT$/, 409, EXIT.usage],
  [/^HF_(CONFIG|UPLINK|STORAGE)_|^HF_(IMAGE_MISSING|SOURCE_DISK)$/, 400, EXIT.usage],
  [/^HF_(USAGE|SOCKET_PATH|STATE_DIR|METRICS_LISTEN|LOG_LEVEL)$/, 400, EXIT.usage],
  [/^HF_REQUEST_/, 400, EXIT.failed],
  [/_(UNKNOWN|NOT_FOUND)$/, 404, EXIT.failed],
  [/_(EXISTS|BUSY)$|^HF_ALREADY_/, 409, EXIT.failed],
  [/^HF_(SERVICE_(ELSEWHERE|ORPHANED)|STOPPING|DRILL_NO_BACKUP)$/, 409, EXIT.failed],
  [/^HF_BACKUP_ADDRESS$/, 400, EXIT.usage],
  [/^HF_BACKUP_(MISSING|SUSPENDED)$|^HF_MIGRATE_/, 409, EXIT.failed],
  [/^HF_SHUTTING_DOWN$/, 503, EXIT.failed],
];

export function errorBody(error: HoldfastError): ErrorBody {
  return { code: error.code, message: error.message, remedy: error.remedy };
}

const meaningOf = ({ code }: HoldfastError) => MEANINGS.find(([pattern]) => pattern.test(code));

export const statusOf = (error: HoldfastError): number => meaningOf(error)?.[1] ?? 500;

/** Exit status of a command that ends with this error. */
export const exitOf = (error: HoldfastError): number => meaningOf(error)?.[2] ?? EXIT.failed;

/** Any thrown value as a `HoldfastError`; `known` is false for what nobody foresaw and the log should explain. */
export function normalize(thrown: unknown): { error: HoldfastError; known: boolean } {
  if (thrown instanceof HoldfastError) {
    return { error: thrown, known: true };
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const { code } = (thrown ?? {}) as NodeJS.ErrnoException;
  if ((code === 'EACCES' || code === 'EPERM') && process.getuid?.() !== 0) {
    return { error: new HoldfastError('HF_NOT_PERMITTED', message, 'Run the command as root.'), known: true };
  }
  const status = (thrown as { statusCode?: unknown } | null)?.statusCode;
  if (typeof status === 'number' && status < 500) {
    return { error: requestError(message), known: true };
  }
  const remedy =
    'Look for this moment in supervisor.log in the state directory; the service goes on as it is.';
  return { error: new HoldfastError('HF_INTERNAL', message, remedy, { cause: thrown }), known: false };
}

export function requestError(message: string): HoldfastError {
  return new HoldfastError(
    'HF_REQUEST_INVALID',
    message,
    'Use the holdfast command of the same version as the daemon, or correct the request.',
  );
}

/** The error a response body describes, or undefined if it describes none. */
export function fromErrorBody(value: unknown): HoldfastError | undefined {
  const body = value as Partial<ErrorBody> | null;
  return typeof body?.code === 'string' && typeof body.message === 'string'
    ? new HoldfastError(body.code, body.message, body.remedy ?? '')
    : undefined;
}
