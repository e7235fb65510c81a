import { HoldfastError } from '../errors.js';
import { libvirt } from './constants.js';

/** A failure as libvirt's thread-local error had it: plain data, because it crosses from a worker thread. */
export interface LibvirtFailure {
  /** `virErrorNumber`, e.g. 42 for "no domain". */
  code: number;
  /** `virErrorDomain`, the part of libvirt that failed, e.g. 10 for the QEMU driver. */
  domain: number;
  text: string;
  /** The connection to the daemon is dead: the call may or may not have taken effect. */
  lost: boolean;
}

/** A call that libvirt refused or could not carry out. `code` is `HF_LIBVIRT`; libvirt's own number is `libvirtCode`. */
export class LibvirtError extends HoldfastError {
  override readonly name = 'LibvirtError';
  readonly libvirtCode: number;
  readonly libvirtDomain: number;
  readonly libvirtText: string;
  readonly connectionLost: boolean;

  constructor(operation: string, failure: LibvirtFailure) {
    super(
      'HF_LIBVIRT',
      `libvirt: ${operation}: ${failure.text} (code ${failure.code}, domain ${failure.domain})`,
      remedyFor(failure),
    );
    this.libvirtCode = failure.code;
    this.libvirtDomain = failure.domain;
    this.libvirtText = failure.text;
    this.connectionLost = failure.lost;
  }
}

/** For a call on a connection that was closed here. libvirt never sees it, so it has libvirt's number for "internal". */
export const connectionClosed = (operation: string): LibvirtError =>
  new LibvirtError(operation, { code: 1, domain: 0, text: 'the connection was closed', lost: false });

function remedyFor(failure: LibvirtFailure): string {
  if (failure.lost) return 'Repeat the operation: the connection to libvirt is being made again.';
  if (failure.code === libvirt.error.noDomain)
    return 'List the guests with `virsh list --all` on the same connection.';
  return "Look into libvirt's own log and the guest's QEMU log (libvirt/log below the state directory).";
}
