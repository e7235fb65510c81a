import { HoldfastError } from '../../hypervisor-shim/errors.js';

/** An error as it travels: in the body of a failed request, or as the last line of an event stream. */
export interface ErrorBody {
  code: `HF_${string}`;
  message: string;
  remedy: string;
}

/** HTTP status by the shape of the code: what the caller got wrong is 4xx, what went wrong here is 5xx. */
const STATUS: [RegExp, number][] = [
  [/^HF_(CONFIG|REQUEST)_/, 400],
  [/_(UNKNOWN|NOT_FOUND)$/, 404],
  [/_(EXISTS|BUSY|CONFLICT)$|^HF_ALREADY_/, 409],
  [/^HF_SHUTTING_DOWN$/, 503],
];

export function errorBody(error: HoldfastError): ErrorBody {
  return { code: error.code, message: error.message, remedy: error.remedy };
}

export function statusOf(error: HoldfastError): number {
  return STATUS.find(([pattern]) => pattern.test(error.code))?.[1] ?? 500;
}

/** Any thrown value as a `HoldfastError`; `known` is false for what nobody foresaw and the log should explain. */
export function normalize(thrown: unknown): { error: HoldfastError; known: boolean } {
  if (thrown instanceof HoldfastError) {
    return { error: thrown, known: true };
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
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
