/** The shortest list that still fails and can be found by leaving out parts: halves first, single elements last. */
export function shrink<T>(list: T[], fails: (shorter: T[]) => boolean, tries = 400): T[] {
  let left = tries;
  let kept = list;
  for (let size = Math.ceil(kept.length / 2); size >= 1; ) {
    let progress = false;
    for (let from = kept.length - size; from >= 0 && left > 0; from -= size) {
      left--;
      const shorter = [...kept.slice(0, from), ...kept.slice(from + size)];
      if (!fails(shorter)) continue;
      kept = shorter;
      progress = true;
    }
    if (left <= 0) break;
    if (size === 1 && !progress) break;
    size = size === 1 ? 1 : Math.ceil(size / 2);
  }
  return kept;
}
