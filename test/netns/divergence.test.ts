/** P2 with real services: output that differs in content or length ends the connection, and says why; what may differ is accepted. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { leftovers } from '../lib/leftovers.js';
import { waitFor } from '../lib/run.js';
import { NetnsBed } from './lib/bed.js';
import { type Fate, FICKLE, type Kind } from './lib/fickle.js';

const TAG = 'diverge';
const SCRIPT = fileURLToPath(new URL('./lib/fickle.js', import.meta.url));
/** For the reply that stops: it can't be told from a slow one sooner. */
const DEADLINE_MS = 5000;

/** What becomes of each, and how its client sees it end. */
const EXPECTED: Record<Kind, { code: string; reason: RegExp; end: Fate['end'] }> = {
  date: { code: 'spliced', reason: /spliced/, end: 'open' },
  longDate: {
    code: 'diverged-content',
    reason: /output differs from what was sent, at byte \d+$/,
    end: 'reset',
  },
  content: {
    code: 'diverged-content',
    reason: /output differs from what was sent, at byte \d+$/,
    end: 'reset',
  },
  shifted: {
    code: 'diverged-content',
    reason: /output differs from what was sent, at byte \d+$/,
    end: 'reset',
  },
  longer: {
    code: 'diverged-longer',
    reason: /output goes on behind byte 20\d+, where it had ended/,
    end: 'ended',
  },
  shorter: { code: 'diverged-shorter', reason: /output ends at byte 15000, before the end/, end: 'reset' },
  stops: { code: 'diverged-shorter', reason: /output 15000 of 20\d+ regenerated/, end: 'reset' },
};

test.serial(
  'divergence by content and by length ends the connection with its reason; another Date is accepted',
  async t => {
    const ports = Object.values(FICKLE);
    const bed = await NetnsBed.create(TAG, { ports, logMiB: 32 });
    try {
      for (const [slot, which] of ['first', 'second'].entries())
        await bed.serve(slot, [process.execPath, SCRIPT, 'serve', which], ports);
      const child = bed.lab.spawn(bed.client.name, [process.execPath, SCRIPT, 'client']);
      let [out, err] = ['', ''];
      child.stdout!.on('data', d => {
        out += d;
      });
      child.stderr!.on('data', d => {
        err += d;
      });
      const ended = once(child, 'close');
      await waitFor('all replies of the first guest', 20_000, () => err.includes('open\n') || undefined);
      await waitFor('their acknowledgements', 5000, () => {
        const flows = [...bed.path.flows()];
        return flows.every(({ flow }) => flow.out_acked >= 20_000n) || undefined;
      });
      const { verdicts } = await bed.failover(DEADLINE_MS);
      child.kill('SIGUSR2');
      await ended;
      const fates: Fate[] = JSON.parse(out);
      for (const kind of Object.keys(FICKLE) as Kind[]) {
        const { code, reason, end } = EXPECTED[kind];
        const judged = verdicts.filter(v => v.port === FICKLE[kind]);
        t.deepEqual(
          judged.map(v => [v.code, v.outcome]),
          [1, 2].map(() => [code, code === 'spliced' ? 'kept' : 'lost']),
          kind,
        );
        for (const v of judged) t.regex(v.reason, reason, kind);
        for (const fate of fates.filter(f => f.kind === kind))
          t.like(fate, { exact: true, end, answered: kind === 'date' }, `${kind} over IPv${fate.family}`);
      }
      t.is(fates.length, 2 * ports.length);
      t.is(verdicts.length, 2 * ports.length);
    } finally {
      await bed.dispose();
    }
    t.deepEqual(await leftovers(TAG), []);
  },
);
