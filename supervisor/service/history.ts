import type { RecoveryCause, ServiceStatus } from '../api/types.js';

type Told = Pick<
  ServiceStatus,
  'startedAt' | 'lastFault' | 'lastRecoveryAt' | 'recoveries' | 'recoveriesByCause'
>;

/** What a service's state file keeps of its past. */
export type SavedHistory = Partial<Omit<Told, 'recoveries'>>;

/** What has happened to a service over its life, whichever supervisor watched over it. */
export class History {
  #saved: SavedHistory = {};

  /** What an earlier supervisor knew; nothing in files of versions that did not keep it. */
  restore(saved: SavedHistory | undefined): void {
    this.#saved = { ...saved };
  }

  /** True the first time. */
  started(): boolean {
    if (this.#saved.startedAt !== undefined) return false;
    this.#saved.startedAt = Date.now();
    return true;
  }

  failed(cause: RecoveryCause, detail: string, at: number): void {
    this.#saved.lastFault = { cause, detail, at };
  }

  recovered(cause: RecoveryCause): void {
    const { recoveriesByCause = {} } = this.#saved;
    this.#saved.recoveriesByCause = { ...recoveriesByCause, [cause]: (recoveriesByCause[cause] ?? 0) + 1 };
    this.#saved.lastRecoveryAt = Date.now();
  }

  get saved(): SavedHistory {
    return this.#saved;
  }

  status(): Told {
    const { recoveriesByCause = {} } = this.#saved;
    const recoveries = Object.values(recoveriesByCause).reduce((sum, n) => sum + n, 0);
    return { ...this.#saved, recoveriesByCause, recoveries };
  }
}
