import { BACKUP_OPERATIONS, type BackupOperation } from '../../guest-agent/wire/control-page.js';

export interface BackupRequest {
  operation: BackupOperation;
  /** With `address`: what was given, of the right form. */
  address: string | undefined;
}

const FORM = /^backup ([a-z]{1,16})(?: (\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\/\d{1,2}))?$/;

/** What a guest has written as its request; undefined if it is none. It may be any bytes. */
export function parseRequest(bytes: Uint8Array): BackupRequest | undefined {
  const [, word, address] = FORM.exec(Buffer.from(bytes).toString('latin1')) ?? [];
  const operation = BACKUP_OPERATIONS.find(name => name === word);
  if (operation === undefined || (operation === 'address') !== (address !== undefined)) return undefined;
  return { operation, address };
}

/** Its beginning, fit for an event. */
export function quoteRequest(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.subarray(0, 60))
    .toString('latin1')
    .replace(/[^ -~]/g, '?');
  return JSON.stringify(text);
}
