import { controlSocket, stateDirectory } from '../api/paths.js';
import type { Finding } from '../doctor/finding.js';
import type { CommandContext } from './commands.js';
import { EXIT } from './output.js';

const MARKS = { ok: 'ok  ', warning: 'warn', failure: 'FAIL' };

/** `holdfast doctor`: fails if something is lacking that is needed. */
export async function doctor(context: CommandContext, config: string | undefined): Promise<number> {
  const { output } = context;
  const { diagnose } = await import('../doctor/doctor.js');
  const options = {
    stateDir: stateDirectory(context.stateDir),
    socket: controlSocket(context.socket),
    ...(config !== undefined && { config }),
  };
  const findings = await diagnose(options, finding => {
    if (!output.json) output.result(undefined, formatFinding(finding));
  });
  const failures = findings.filter(({ level }) => level === 'failure').length;
  const warnings = findings.filter(({ level }) => level === 'warning').length;
  const verdict = failures > 0 ? `${failures} failures` : 'this host will do';
  output.result({ ok: failures === 0, findings }, `\n${verdict}, ${warnings} warnings`);
  return failures > 0 ? EXIT.failed : EXIT.ok;
}

function formatFinding({ check, level, found, remedy }: Finding): string {
  const lines = [`${MARKS[level]}  ${check}: ${found.replaceAll('\n', '\n      ')}`];
  if (remedy) lines.push(`      remedy: ${remedy}`);
  return lines.join('\n');
}
