import { EventEmitter } from 'node:events';
import type { RecoveryReport } from '../api/types.js';
import { drain, endWithoutOther, fallBack, switchOver } from '../migration/migration.js';
import type { GuestVm } from '../service/guest.js';
import { handOver, isHandedOver } from '../service/hand-over.js';
import { dumpMemory, keepConsole } from '../service/keepsakes.js';
import type { Fault, Protection } from '../service/protection.js';
import { replayLate, SecondFault, takeOver } from './recovery.js';

/** Pause after a step that failed, ms: doubled each time, up to the second. */
const RETRY_MS = [1000, 30_000] as const;

type Step = () => Promise<void>;

/**
 * Brings a service from whatever state it is in to `protected`, one step at a time, for as long as it lives. Each step is
 * chosen by looking at what there is, never by what was done before: so a fault at any moment needs no case of its own.
 */
export class Upkeep extends EventEmitter<{ report: [RecoveryReport]; failed: [unknown]; protected: [] }> {
  constructor(private readonly p: Protection) {
    super();
  }

  /** Resolves when the service is stopped and no step is under way. */
  async run(): Promise<void> {
    const { p } = this;
    let retryMs: number = RETRY_MS[0];
    while (!p.stopped.aborted) {
      const step = this.#next();
      if (!step) {
        await p.nap();
        continue;
      }
      try {
        await step();
        retryMs = RETRY_MS[0];
      } catch (error) {
        if (p.stopped.aborted) break;
        if (error instanceof SecondFault) continue;
        this.#tell(error);
        await p.nap(retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MS[1]);
      }
    }
  }

  #next(): Step | undefined {
    const { p } = this;
    const { primary, replayer, fault, leaving } = p;
    if (!primary) return () => this.#bootPrimary();
    if (fault && leaving) fallBack(p, leaving);
    const { backup, migration } = p;
    if (fault) {
      if (backup && replayer) return () => this.#recover(fault, backup);
      if (!backup) p.waitForGuest(fault.detail);
      return backup ? () => p.readyReplayer() : () => this.#bootBackup();
    }
    // While connections are replayed in place that has the replayer, and sees to all that is held.
    if (!p.crashed) {
      if (!replayer) return () => p.readyReplayer();
      if (p.lateFlows || p.interrupted) return () => this.#replayLate(primary);
    }
    const { failedBackup } = p;
    if (failedBackup) return () => p.removeGuest(failedBackup);
    if (migration) {
      if (leaving && !p.crashed) return () => drain(p, migration, leaving);
      if (!leaving && backup?.state === 'suspended') return () => switchOver(p, migration, backup);
      if (!leaving && backup === undefined) endWithoutOther(p, migration);
    }
    if (leaving) return undefined;
    if (!backup) return () => this.#bootBackup();
    if (backup.state === 'ready' && !backup.isAwake) return () => this.#suspendBackup(backup);
    if (p.phase !== 'protected' && !p.crashed) {
      p.become('protected');
      this.emit('protected');
    }
    return undefined;
  }

  async #bootPrimary(): Promise<void> {
    const { p } = this;
    const guest = await this.#boot('primary');
    const epoch = p.nextEpoch();
    guest.state = 'active';
    guest.channel.activate(epoch, BigInt(Date.now()) * 1_000_000n);
    p.primary = guest;
    p.path.activate(guest.slot, epoch);
    p.path.setListening(guest.slot, true);
    p.save();
  }

  async #bootBackup(): Promise<void> {
    const { p } = this;
    if (!p.fault) p.become('unprotected', 'the backup boots');
    p.backup = await this.#boot('backup');
    p.save();
  }

  async #boot(role: 'primary' | 'backup'): Promise<GuestVm> {
    const { p } = this;
    const guest = await p.makeGuest();
    p.booting = guest;
    try {
      p.say('guest.booting', `${guest.name} boots as ${role}`, { guest: guest.name, role });
      await guest.boot(p.stopped, isHandedOver(p) ? 'waiting' : 'listening');
      if (role === 'primary') await handOver(p, guest);
      const { bootId, application } = guest.report();
      p.say('guest.ready', `${guest.name} is ${application}`, { guest: guest.name, role, bootId });
      return guest;
    } catch (error) {
      await p.removeGuest(guest);
      throw error;
    } finally {
      p.booting = undefined;
    }
  }

  /** It has started its services before, and keeps them in memory: from now on it costs no CPU. */
  async #suspendBackup(backup: GuestVm): Promise<void> {
    await backup.suspend();
    this.p.say('guest.suspended', `${backup.name} waits suspended`, { guest: backup.name });
  }

  async #recover(fault: Fault, backup: GuestVm): Promise<void> {
    const { p } = this;
    const old = p.primary;
    p.become('recovering', fault.detail);
    try {
      await p.withReplayer(async replayer => {
        const { report } = await takeOver(p, fault, backup, replayer);
        this.emit('report', report);
      });
      if (!p.fault) p.become('unprotected', 'the next backup boots');
    } catch (error) {
      if (!(error instanceof SecondFault)) p.lateFlows = true;
      throw error;
    } finally {
      if (old) await this.#retire(old).catch(error => this.#tell(error));
    }
  }

  async #replayLate(primary: GuestVm): Promise<void> {
    const { p } = this;
    p.lateFlows = false;
    try {
      await p.withReplayer(async replayer => {
        const report = await replayLate(p, replayer, primary);
        if (report) this.emit('report', report);
      });
    } catch (error) {
      p.lateFlows = true;
      throw error;
    }
  }

  /** What becomes of a failed primary; the one before it, if there is one, goes. */
  async #retire(old: GuestVm): Promise<void> {
    const { p } = this;
    if (p.former) await p.removeGuest(p.former);
    p.former = old;
    p.path.detachGuest(old.slot);
    const { former } = p.config.recovery;
    await keepConsole(p, old).catch(error => this.#tell(error));
    if (former === 'destroy') return p.removeGuest(old);
    if (former === 'aside' && (await old.runs())) old.state = 'aside';
    // Of a QEMU that is gone there is nothing to dump.
    if (former === 'dump' && old.state !== 'off') void this.#dump(old);
    const where =
      old.state === 'aside' ? `runs on, at ${p.maker.managementAddress(old.slot)}` : 'is kept paused';
    p.say('guest.retired', `${old.name} ${where}, for diagnosis; its console is ${old.serialLog}`, {
      guest: old.name,
      state: old.state,
    });
  }

  /** Beside everything else: a new backup matters more. */
  async #dump(old: GuestVm): Promise<void> {
    const { p } = this;
    try {
      await dumpMemory(p, old);
      if (p.former === old) await p.removeGuest(old);
    } catch (error) {
      this.#tell(error);
    }
  }

  #tell(error: unknown): void {
    const { p } = this;
    const text = error instanceof Error ? error.message : String(error);
    p.say('service.trouble', text, { error: error instanceof Error ? error.stack : error });
    if (p.phase === 'unprotected' || p.phase === 'recovering') p.become(p.phase, text);
    this.emit('failed', error);
  }
}
