import { type MaskSpec, rngOf } from "@paddock/contract";
import { collateMasks, cropRow, maskDrawsOf, packMasks, upperTargets } from "@paddock/data";
import { replayOf } from "../augment/mask-draws.js";
import { momentsOf, sameHistogram, sameMoments } from "../augment/statistics.js";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

interface Config {
  readonly grid: number;
  readonly batch: number;
  readonly mask_ratio: [number, number];
  readonly mask_probability: number;
  readonly seeds: number[];
  /** DINOv3 only: with and without circular shift. */
  readonly shift?: boolean[];
  readonly stats?: Pick<Config, "grid" | "batch" | "mask_ratio" | "mask_probability"> & {
    readonly n: number;
  };
}

/** Batches of Paddock's own. */
const numBatches = 8000;

/** Masks of a whole batch of crops. */
export const maskCollate: Kind = {
  name: "mask collate",
  matches: ({ config, family }) =>
    (family === "dinov2" || family === "dinov3") &&
    config.mask_ratio !== undefined &&
    config.mask_probability !== undefined,
  run(golden, check) {
    const config = golden.config as Config;
    const exact = golden.family === "dinov3";
    for (const seed of config.seeds) {
      for (const shift of config.shift ?? [null]) {
        const spec = maskSpecOf(config, exact, shift === true);
        const prefix = shift === null ? "" : shift ? "shift." : "noshift.";
        compareBatch(golden, check, `${prefix}seed${seed}`, config, spec);
      }
    }
    compareOrder(golden, check, config);
    if (config.stats) compareStatistics(golden, check, config.stats, exact);
  },
};

function maskSpecOf(
  config: Pick<Config, "mask_ratio" | "mask_probability">,
  exact: boolean,
  circularShift: boolean,
): MaskSpec {
  return { probability: config.mask_probability, ratio: config.mask_ratio, exact, circularShift };
}

function compareBatch(
  golden: Golden,
  check: Check,
  name: string,
  { grid, batch }: Config,
  spec: MaskSpec,
): void {
  const replay = replayOf(golden, check, name, {
    draws: `inputs.draws.${name}`,
    shuffle: `inputs.shuffle.${name}`,
    added: `inputs.added.${name}`,
  });
  const masks = collateMasks(replay.draws, 2 * batch, grid, spec);
  replay.end();
  const tensor = (kind: string, values: ArrayLike<number>): void =>
    check.tensor(`outputs.${kind}.${name}`, values, () => 0);
  tensor(
    "collated_masks",
    masks.flatMap((mask) => [...mask]),
  );
  const { maskRows, maskWeights } = packMasks(masks);
  tensor("mask_indices_list", maskRows);
  tensor("masks_weight", maskWeights);
  const numMasked = Math.floor(2 * batch * spec.probability);
  const bound = sumOf(upperTargets(grid * grid, numMasked, spec.ratio));
  tensor("upperbound_and_n_masked", [bound, maskRows.length]);
}

/** Crops stand crop-major: the first crop of all images, then the second of all. */
function compareOrder(golden: Golden, check: Check, { batch }: Config): void {
  for (const name of golden.names("outputs.order_")) {
    const crops = golden.values(name).length / batch;
    const rows = Array.from({ length: crops }, (_, crop) =>
      Array.from({ length: batch }, (_, image) => cropRow(crop, image, batch)),
    );
    check.tensor(name, rows.flat(), () => 0);
  }
}

function compareStatistics(
  golden: Golden,
  check: Check,
  stats: NonNullable<Config["stats"]>,
  exact: boolean,
): void {
  const spec = maskSpecOf(stats, exact, false);
  const { grid, batch, n } = stats;
  const draws = maskDrawsOf(rngOf(11));
  const counts = Array.from(
    { length: numBatches },
    () => packMasks(collateMasks(draws, 2 * batch, grid, spec)).maskRows.length,
  );
  const [mean = 0, std = 0, least = 0, most = 0] = golden.f64(
    "outputs.stats.n_masked_mean_std_min_max",
  );
  sameMoments(check, "masked patches", momentsOf(counts), numBatches, { mean, std, n });
  const bound = sumOf(
    upperTargets(grid * grid, Math.floor(2 * batch * spec.probability), spec.ratio),
  );
  const upper = golden.i32("outputs.stats.upperbound");
  check.tensor("outputs.stats.upperbound", [bound, bound].slice(0, upper.length), () => 0);
  check.holds("upper bound", Math.max(...counts) <= bound, "a batch masks more than its bound");
  // Ours are more draws, so they reach about as far.
  const slack = std;
  check.holds(
    "least and most masked",
    Math.min(...counts) <= least + slack && Math.max(...counts) >= most - slack,
    `${Math.min(...counts)} to ${Math.max(...counts)}, not ${least} to ${most}`,
  );
  const theirs = golden.i32("outputs.stats.n_masked_hist");
  const ours = new Array<number>(theirs.length).fill(0);
  for (const count of counts) ours[count] = (ours[count] ?? 0) + 1;
  sameHistogram(
    check,
    "outputs.stats.n_masked_hist",
    { counts: ours, n: numBatches },
    { counts: theirs, n },
  );
  check.covered("outputs.stats.n_masked_hist", "outputs.stats.n_masked_mean_std_min_max");
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
