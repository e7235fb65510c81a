import { HoldfastError } from '../../hypervisor-shim/errors.js';
import type { DrillFault, RecoveryReport } from '../api/types.js';
import { now } from '../clock.js';
import type { GuestVm } from '../service/guest.js';
import { ipBatch } from '../service/ip.js';
import type { Protection } from '../service/protection.js';
import type { Upkeep } from './upkeep.js';

/** How long an injected fault may go unnoticed before the drill itself has failed, ms. */
const NOTICE_MS = 30_000;

/**
 * Injects a fault into the primary and resolves with the report of the recovery, without waiting for the next backup.
 * Throws `HF_DRILL_NO_BACKUP` or `HF_SERVICE_BUSY` if the service could not survive it now.
 */
export function drill(p: Protection, upkeep: Upkeep, fault: DrillFault): Promise<RecoveryReport> {
  const primary = p.primary;
  if (p.phase !== 'protected' || p.fault || p.drillAt !== undefined || !primary || !p.backup || !p.replayer) {
    throw notReady(p);
  }
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      if (p.fault || p.phase === 'recovering') return;
      end();
      p.drillAt = undefined;
      const message = `the primary ${primary.name} shows no fault ${NOTICE_MS / 1000} s after ${fault} was injected`;
      const remedy = `Read its console, ${primary.serialLog}: an agent that does not run carries no command out.`;
      reject(new HoldfastError('HF_DRILL_NO_EFFECT', message, remedy));
    }, NOTICE_MS);
    const onReport = (report: RecoveryReport) => {
      end();
      resolve(report);
    };
    const onFailed = (error: unknown) => {
      end();
      p.drillAt = undefined;
      reject(error);
    };
    const onStopped = () => onFailed(p.stopped.reason);
    const end = () => {
      clearTimeout(timer);
      upkeep.off('report', onReport).off('failed', onFailed);
      p.stopped.removeEventListener('abort', onStopped);
    };
    upkeep.on('report', onReport).on('failed', onFailed);
    p.stopped.addEventListener('abort', onStopped);
    p.say('drill.started', `${fault} is injected into ${primary.name}`, { fault, guest: primary.name });
    p.drillAt = now();
    inject(p, primary, fault).catch(onFailed);
  });
}

/** Carried out inside the guest, by its agent. */
const COMMANDS = {
  'guest-panic': 'panic',
  'guest-hang': 'halt',
  'guest-spin': 'spin',
  reboot: 'reboot',
  poweroff: 'poweroff',
  'app-kill': 'appKill',
  'app-segv': 'appSegv',
  'app-worker': 'appWorker',
  'app-stop': 'appStop',
} as const;

async function inject(p: Protection, primary: GuestVm, fault: DrillFault): Promise<void> {
  if (fault === 'link-cut') await ipBatch([`link set ${p.names.tap(primary.slot)} down`]);
  else if (fault !== 'vm-kill') primary.channel.sendCommand(COMMANDS[fault]);
  else if (primary.pid !== undefined) process.kill(primary.pid, 'SIGKILL');
}

function notReady(p: Protection): HoldfastError {
  const { name } = p.config;
  if (p.phase === 'protected' || p.phase === 'recovering') {
    return new HoldfastError(
      'HF_SERVICE_BUSY',
      `${name} is recovering from a fault, or another drill is under way`,
      `Wait until \`holdfast status ${name}\` says protected.`,
    );
  }
  return new HoldfastError(
    'HF_DRILL_NO_BACKUP',
    `${name} has no backup that could take over: it is ${p.phase}${p.reason ? ` (${p.reason})` : ''}`,
    `Wait until \`holdfast status ${name}\` says protected: the fault would be a real one now.`,
  );
}
