/** What one check found. `remedy` is absent where there is nothing to do. */
export interface Finding {
  check: string;
  level: 'ok' | 'warning' | 'failure';
  found: string;
  remedy?: string;
}

export type Look = Omit<Finding, 'check'>;

/** One thing to look at. Whatever `look` throws is a failure of the check, with `remedy`. */
export interface Check {
  name: string;
  remedy: string;
  look: () => Promise<Look | Look[]>;
}

export const ok = (found: string): Look => ({ level: 'ok', found });
export const warning = (found: string, remedy: string): Look => ({ level: 'warning', found, remedy });
export const failure = (found: string, remedy: string): Look => ({ level: 'failure', found, remedy });

/** A check that is a proof: it holds, or says why not. */
export function proof(name: string, prove: () => Promise<string>, remedy: string): Check {
  return { name, remedy, look: async () => ok(await prove()) };
}
