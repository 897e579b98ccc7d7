/** Which checkpoints of a run stay. */

/** Steps, in the order given: the newest `keep`, and those at multiples of `keepEvery` (0: none). @param checkpoints oldest first */
export function keptSteps(
  checkpoints: readonly { readonly step: number }[],
  { keep, keepEvery }: { readonly keep: number; readonly keepEvery: number },
): number[] {
  const first = checkpoints.length - keep;
  return checkpoints
    .map(({ step }) => step)
    .filter((step, i) => i >= first || (keepEvery > 0 && step % keepEvery === 0));
}
