/** A ratio of two quantities that were measured in pairs, with its 95% confidence interval. */
export interface Ratio {
  /** Median over the pairs. */
  ratio: number;
  low: number;
  high: number;
  /** Medians of the two quantities, in their own unit. */
  plain: number;
  protected: number;
}

export interface Pair {
  plain: number;
  protected: number;
}

/** Two-sided 95% points of Student's t by degrees of freedom. */
const T95 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131,
];

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** protected / plain: median of the pairs' ratios, t-interval over their logarithms. */
export function ratioOf(pairs: readonly Pair[]): Ratio {
  const ratios = pairs.map(pair => pair.protected / pair.plain);
  const logs = ratios.map(Math.log);
  const n = logs.length;
  const mean = logs.reduce((a, b) => a + b, 0) / n;
  const variance = logs.reduce((sum, x) => sum + (x - mean) ** 2, 0) / Math.max(n - 1, 1);
  const t = n < 2 ? Number.POSITIVE_INFINITY : (T95[n - 2] ?? 1.96);
  const half = n < 2 ? Number.POSITIVE_INFINITY : t * Math.sqrt(variance / n);
  return {
    ratio: median(ratios),
    low: Math.exp(mean - half),
    high: Math.exp(mean + half),
    plain: median(pairs.map(pair => pair.plain)),
    protected: median(pairs.map(pair => pair.protected)),
  };
}
