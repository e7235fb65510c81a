/**
 * A spiller that gets SIGKILL in the middle of its work, by its own hand, so that the moment is known:
 *
 *   node mortal-spiller.js PINS DIRECTORY LIMIT_BYTES written|freed N
 *
 * It dies when it has written (or also freed) the Nth piece.
 */
import { DataPath } from '../../../hypervisor-shim/datapath/datapath.js';
import { Evictor } from '../../../hypervisor-shim/spill/evictor.js';

const [pins, directory, limit, step, nth] = process.argv.slice(2);

class Mortal extends Evictor {
  private pieces = 0;
  protected override free(flow: number, generation: number, first: number, count: number): boolean {
    const last = ++this.pieces === Number(nth);
    if (last && step === 'written') process.kill(process.pid, 'SIGKILL');
    const done = super.free(flow, generation, first, count);
    if (last) process.kill(process.pid, 'SIGKILL');
    return done;
  }
}

const path = DataPath.adopt(pins!);
const mortal = new Mortal(path, path.spillFiles(directory!), Number(limit));
setInterval(() => mortal.round(), 2);
