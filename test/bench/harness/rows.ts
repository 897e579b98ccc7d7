/** Results: medians of pairs with their spread, as a table for people or as one JSON object per line. */

export interface Row {
  readonly bench: string;
  readonly case: string;
  readonly unit: string;
  /** Medians. */
  readonly ours: number;
  readonly peer: number | null;
  /** Median over the pairs of ours / peer. Whether more is better follows from the unit. */
  readonly ratio: number | null;
  readonly pairs: number;
  /** Distance of the quartiles over the median: of the pairs' ratios, or of ours without a peer. */
  readonly spread: number;
}

/** The row of paired measurements; `peer` is absent where there is nothing to compare with. */
export function rowOf(
  name: Pick<Row, "bench" | "case" | "unit">,
  ours: readonly number[],
  peer?: readonly number[],
): Row {
  const ratios = peer?.map((value, i) => (ours[i] as number) / value);
  return {
    ...name,
    ours: median(ours),
    peer: peer ? median(peer) : null,
    ratio: ratios ? median(ratios) : null,
    pairs: ours.length,
    spread: spreadOf(ratios ?? ours),
  };
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Linear between the two nearest values. */
function quantile(values: readonly number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const position = at * (sorted.length - 1);
  const low = sorted[Math.floor(position)] ?? Number.NaN;
  const high = sorted[Math.ceil(position)] ?? Number.NaN;
  return low + (high - low) * (position - Math.floor(position));
}

function spreadOf(values: readonly number[]): number {
  return (quantile(values, 0.75) - quantile(values, 0.25)) / median(values);
}

export const tableHead = line(["case", "unit", "ours", "peer", "ours/peer", "pairs", "spread"]);

/** A row for people. */
export function tableLine({ case: name, unit, ours, peer, ratio, pairs, spread }: Row): string {
  return line([
    name,
    unit,
    number(ours),
    peer === null ? "-" : number(peer),
    ratio === null ? "-" : ratio.toFixed(3),
    String(pairs),
    `${(100 * spread).toFixed(1)} %`,
  ]);
}

function line([name = "", unit = "", ...numbers]: readonly string[]): string {
  return `${name.padEnd(44)} ${unit.padEnd(12)} ${numbers.map((text) => text.padStart(10)).join("")}`;
}

function number(value: number): string {
  return value >= 1000 ? value.toFixed(0) : value.toPrecision(4);
}
