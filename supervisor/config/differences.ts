/** Names of the fields in which two configurations differ, `guest.memoryMiB`; mappings are compared field by field. */
export function differences(one: object, other: object, prefix = ''): string[] {
  const [a, b] = [one, other] as Record<string, unknown>[];
  const keys = new Set([...Object.keys(a!), ...Object.keys(b!)]);
  return [...keys].flatMap(key => {
    const [x, y] = [a![key], b![key]];
    if (isMapping(x) && isMapping(y)) return differences(x, y, `${prefix}${key}.`);
    return JSON.stringify(x) === JSON.stringify(y) ? [] : [`${prefix}${key}`];
  });
}

const isMapping = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
