import { DIVERGENCE, type Flow } from '../datapath/layout.generated.js';
import type { VerdictCode } from './protocol.js';

/** How a guest's output differs from what the client has of an earlier one, as the record of a diverged flow tells. */
export function divergenceOf(flow: Flow): { code: VerdictCode; reason: string } {
  const at = flow.diverged_at;
  switch (flow.divergence) {
    case DIVERGENCE.DIFFERS_LONGER:
      return { code: 'diverged-longer', reason: `output goes on behind byte ${at}, where it had ended` };
    case DIVERGENCE.DIFFERS_SHORTER:
      return {
        code: 'diverged-shorter',
        reason: `output ends at byte ${at}, before the end of what was sent`,
      };
    default:
      return { code: 'diverged-content', reason: `output differs from what was sent, at byte ${at}` };
  }
}
