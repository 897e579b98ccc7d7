import { invariant } from "@paddock/contract";

/** Largest and mean absolute difference. */
export function distance(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
): { max: number; mean: number } {
  invariant(a.length === b.length, `lengths ${a.length} and ${b.length}`);
  let [max, sum] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    max = Math.max(max, difference);
    sum += difference;
  }
  return { max, mean: sum / a.length };
}
