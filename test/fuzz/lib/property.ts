/** Properties of parsers, tried with inputs that fast-check makes up, and first with those that once broke something. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { repositoryRoot } from '../../lib/run.js';

/** Inputs of properties over one text, by the property's name. */
const corpus = JSON.parse(
  readFileSync(join(repositoryRoot(), 'test/fuzz/corpus/parsers.json'), 'utf8'),
) as Record<string, string[]>;

/** In `make fuzz`, s for all properties together. */
const seconds = Number(process.env.HOLDFAST_FUZZ_SECONDS ?? 0);
let properties = 0;

/** Tells whether `check` neither throws nor returns false for whatever is drawn from `inputs`. */
export function property<T>(name: string, inputs: fc.Arbitrary<T>, check: (input: T) => boolean): void {
  properties++;
  test.serial(name, t => {
    fc.assert(fc.property(inputs, check), {
      examples: (corpus[name] ?? []).map(text => [text as T]),
      ...(seconds
        ? { numRuns: Number.MAX_SAFE_INTEGER, interruptAfterTimeLimit: (1000 * seconds) / properties }
        : { numRuns: 300 }),
    });
    t.pass();
  });
}

/** Text near to a sound one: pieces of it left out, doubled, or replaced. */
export function damaged(sound: string, piece: fc.Arbitrary<string> = fc.string()): fc.Arbitrary<string> {
  const place = fc.nat(sound.length);
  const change = fc.tuple(
    place,
    fc.nat(20),
    fc.oneof(
      piece,
      place.map(at => sound.slice(at, at + 30)),
    ),
  );
  return fc
    .array(change, { maxLength: 6 })
    .map(changes =>
      changes.reduce((text, [at, cut, put]) => text.slice(0, at) + put + text.slice(at + cut), sound),
    );
}
