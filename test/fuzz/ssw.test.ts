/** Scripts of frames and of user space's doings run through the SSW; what must always be true is looked at after each step. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { CORPUS, makeFuzzer, runFuzzer } from './lib/fuzzer.js';

/** Time for new inputs, s; `make fuzz` takes longer. */
const SECONDS = 5;

const scratch = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
test.before(makeFuzzer);
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));

test.serial('SSW: what is known breaks nothing', async t => {
  const { broken, inputs } = await runFuzzer(['-runs=0', CORPUS], scratch);
  t.is(broken, undefined);
  t.true(inputs >= readdirSync(CORPUS).length, `${inputs} inputs were played`);
});

test.serial('SSW: nor do new inputs', async t => {
  // The first directory takes what is new.
  const { broken, inputs, coverage } = await runFuzzer(
    [`-max_total_time=${SECONDS}`, scratch, CORPUS],
    scratch,
  );
  t.is(broken, undefined);
  t.log(`${inputs} inputs, ${coverage} edges`);
});
