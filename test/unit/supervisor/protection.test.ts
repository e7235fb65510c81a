import test from 'ava';
import { Protection } from '../../../supervisor/service/protection.js';

type Parts = ConstructorParameters<typeof Protection>;

function protection(): Protection {
  const [config, names, files] = [{ name: 'web' }, {}, { save: () => {} }];
  const [path, log] = [{ fence: () => {} }, { append: () => {} }];
  const p = new Protection(...([config, names, files, {}, path, {}, log] as unknown as Parts));
  p.primary = { name: 'web-a', slot: 0, state: 'active' } as Protection['primary'];
  return p;
}

test("a drill's fault keeps its moment when it was met in place first, and the guest is given up then", t => {
  const p = protection();
  p.crashed = { cause: 'application-exit', detail: '', detectedAt: 8, fencedAt: 8, faultAt: 5 };
  p.primaryFailed('application-exit', 'it does not start', 20);
  t.like(p.fault, { faultAt: 5, detectedAt: 20 });

  const other = protection();
  other.primaryFailed('guest-gone', '', 20);
  t.is(other.fault!.faultAt, undefined, 'nobody injected it');
});
