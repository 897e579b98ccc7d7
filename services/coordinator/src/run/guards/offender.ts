/** Of all that workers saw, what was not finite first. Pure, and but for the worker the same for every number of workers. */
import type { Layout, Offender, SkipReason } from "@paddock/contract";
import type { Prepared, Offender as Seen } from "@paddock/proto";

/** @param prepared of one step, by worker index @param names of the workers @param scaled whether gradients pass through fp16 at a scale above 1 */
export function offenderOf(
  layout: Layout,
  prepared: readonly Prepared[],
  names: readonly string[],
  scaled: boolean,
): Offender {
  const all = prepared.flatMap(({ offenders }, worker) =>
    offenders.map((seen) => ({ seen, worker })),
  );
  const [first] = all.sort(
    (a, b) => a.seen.order - b.seen.order || rankOf(a.seen) - rankOf(b.seen),
  );
  if (!first) {
    // Only sums of finite values were not: of squares, for the norms.
    const reason = scaled ? "overflow" : "gradient";
    return {
      reason,
      tensor: "gradient norm",
      rank: null,
      worker: null,
      workerName: "",
      samples: [],
    };
  }
  const { seen, worker } = first;
  const known = seen.rank >= 0;
  return {
    reason: reasonOf(seen, scaled),
    tensor: parameterOf(
      layout,
      seen,
      all.map((one) => one.seen),
    ),
    rank: known ? seen.rank : null,
    worker: known ? worker : null,
    workerName: known ? (names[worker] ?? "") : "",
    samples: seen.samples,
  };
}

/** What ranks make together comes after what one of them made. */
function rankOf({ rank }: Seen): number {
  return rank < 0 ? Number.POSITIVE_INFINITY : rank;
}

/** Forward knows no loss scale: what is bad there is bad at any scale. */
function reasonOf({ tensor }: Seen, scaled: boolean): SkipReason {
  if (tensor.startsWith("sum ") || tensor.startsWith("loss ")) return "loss";
  return scaled ? "overflow" : "gradient";
}

/** A rank's gradient is known by unit; the reduced one by parameter, in the shard of whoever has it. */
function parameterOf(layout: Layout, first: Seen, all: readonly Seen[]): string {
  const order = layout.units.flatMap(({ parameters }) => parameters.map(({ name }) => name));
  const places = all
    .filter((seen) => seen.order === first.order)
    .map(({ tensor }) => order.indexOf(tensor))
    .filter((place) => place >= 0);
  return places.length === 0 ? first.tensor : (order[Math.min(...places)] as string);
}
