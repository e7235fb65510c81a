import { HoldfastError } from '../../hypervisor-shim/errors.js';
import { configChecks } from './config-checks.js';
import type { Check, Finding } from './finding.js';
import { hostChecks } from './host-checks.js';
import { hypervisorChecks } from './hypervisor-checks.js';
import { leftoverChecks } from './leftover-checks.js';
import { networkChecks } from './network-checks.js';
import { resourceChecks } from './resource-checks.js';
import { readSubject } from './subject.js';

/**
 * Looks at everything that is assumed of this host and, with a configuration file, at what that service needs of it. Nothing
 * is changed that is not put back. Gives each finding as it is made, too: some take seconds.
 */
export async function diagnose(
  options: { stateDir: string; socket: string; config?: string },
  onFinding: (finding: Finding) => void = () => {},
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const take = (finding: Finding) => {
    findings.push(finding);
    onFinding(finding);
  };
  const subject = await readSubject(options, take);
  const checks = [
    ...hostChecks(),
    ...networkChecks(),
    ...hypervisorChecks(subject),
    ...resourceChecks(subject),
    ...(subject.config ? configChecks(subject, subject.config) : []),
    ...leftoverChecks(subject),
  ];
  // One after the other: some use the same scratch names, and a trial boot wants the CPU for itself.
  for (const check of checks) {
    for (const finding of await run(check)) take(finding);
  }
  return findings;
}

async function run(check: Check): Promise<Finding[]> {
  try {
    const looks = await check.look();
    return [looks].flat().map(look => ({ check: check.name, ...look }));
  } catch (error) {
    const remedy = error instanceof HoldfastError ? error.remedy : check.remedy;
    return [{ check: check.name, level: 'failure', found: said(error), remedy }];
  }
}

/** A command's own words say more than that it failed. */
function said(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message?: string };
  return (stderr?.trim() || message || String(error)).split('\n').slice(0, 3).join('; ');
}
