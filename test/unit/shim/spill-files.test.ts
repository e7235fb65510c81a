/** The form of the spill files: what was written is read again, or the segment is said to be damaged. */
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  placeOf,
  SpillDamaged,
  SpilledInput,
  SpillFiles,
} from '../../../hypervisor-shim/datapath/spill-files.js';

const LIFE = 0xfeed_f00d_1234_5678n;
const segment = (index: number): Uint8Array =>
  Buffer.alloc(index === 0 ? 2048 : 16_384).map((_, i) => (i * 31 + index * 7 + (i >> 8)) & 0xff);

function inDirectory(t: ExecutionContext, body: (files: SpillFiles, directory: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'hf-spill-'));
  try {
    const files = new SpillFiles(join(directory, 'a/b'), LIFE);
    files.prepare();
    body(files, files.directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
  t.pass();
}

const written = (files: SpillFiles, flow = 7, generation = 3): void => {
  files.write(flow, generation, 0, [0, 1, 2].map(segment));
  files.write(flow, generation, 3, [3, 4].map(segment));
};

test('segments are read as they were written, in any order, by a successor too', t => {
  inDirectory(t, (files, directory) => {
    written(files);
    const successor = new SpillFiles(directory, LIFE);
    for (const index of [4, 0, 2, 1, 3])
      t.deepEqual(Buffer.from(successor.read(7, 3, index)), segment(index));
    t.deepEqual(successor.list(), [{ flow: 7, generation: 3, bytes: placeOf(5) }]);
  });
});

test('input is read by position, across segments', t => {
  inDirectory(t, files => {
    written(files);
    const all = Buffer.concat([0, 1, 2, 3, 4].map(segment));
    const input = new SpilledInput(files, 7, 3);
    for (const step of [1000, 16_384, 5, 40_000]) {
      for (let at = 0; at < all.length; at += step) {
        const { bytes, offset, length } = input.input(BigInt(at), BigInt(Math.min(all.length, at + step)));
        t.true(
          length > 0 &&
            Buffer.from(bytes.subarray(offset, offset + length)).equals(all.subarray(at, at + length)),
        );
      }
    }
  });
});

test('to write again changes nothing: whoever died before the segments were freed', t => {
  inDirectory(t, (files, directory) => {
    written(files);
    const before = readFileSync(join(directory, '7-3'));
    files.write(7, 3, 1, [1, 2, 3].map(segment));
    t.deepEqual(readFileSync(join(directory, '7-3')), before);
  });
});

test('damage is found, and harms only the segment that it hits', t => {
  inDirectory(t, (files, directory) => {
    const file = join(directory, '7-3');
    const whole = () => {
      written(files);
      return readFileSync(file);
    };
    // a byte of the data, and each field of the header
    for (const at of [
      placeOf(2) + 32 + 5000,
      ...[0, 4, 8, 12, 16, 24, 28].map(field => placeOf(2) + field),
    ]) {
      const bytes = whole();
      bytes[at]! ^= 0x10;
      writeFileSync(file, bytes);
      t.throws(() => files.read(7, 3, 2), { instanceOf: SpillDamaged, message: /segment 2 .* is damaged/ });
      t.notThrows(() => files.read(7, 3, 1));
    }
    whole();
    truncateSync(file, placeOf(4) + 100);
    t.throws(() => files.read(7, 3, 4), { instanceOf: SpillDamaged, message: /cut off/ });
    t.notThrows(() => files.read(7, 3, 3));
    t.throws(() => files.read(7, 3, 9), { instanceOf: SpillDamaged }, 'beyond the end');
    files.remove(7, 3);
    t.throws(() => files.read(7, 3, 0), { instanceOf: SpillDamaged, message: /ENOENT/ });
  });
});

test('a segment of another flow, generation or data path is none', t => {
  inDirectory(t, (files, directory) => {
    written(files, 7, 3);
    for (const name of ['8-3', '7-4'])
      writeFileSync(join(directory, name), readFileSync(join(directory, '7-3')));
    t.throws(() => files.read(8, 3, 0), { instanceOf: SpillDamaged });
    t.throws(() => files.read(7, 4, 0), { instanceOf: SpillDamaged });
    t.throws(() => new SpillFiles(directory, LIFE + 1n).read(7, 3, 0), { instanceOf: SpillDamaged });
  });
});

test('input that begins behind a trim leaves a hole before it', t => {
  inDirectory(t, files => {
    files.write(1, 0, 5, [segment(5)]);
    t.deepEqual(Buffer.from(files.read(1, 0, 5)), segment(5));
    t.throws(() => files.read(1, 0, 4), { instanceOf: SpillDamaged });
  });
});

test('what clients sent is for root only', t => {
  inDirectory(t, (files, directory) => {
    written(files);
    t.is(statSync(directory).mode & 0o777, 0o700);
    t.is(statSync(join(directory, '7-3')).mode & 0o777, 0o600);
    writeFileSync(join(directory, 'notes'), 'not ours');
    t.is(files.list().length, 1);
  });
});
