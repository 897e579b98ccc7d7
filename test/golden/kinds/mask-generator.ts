import { rngOf } from "@paddock/contract";
import { drawMask, maskDrawsOf } from "@paddock/data";
import { replayOf } from "../augment/mask-draws.js";
import {
  momentsOf,
  sameHistogram,
  sameMoments,
  sameShares,
  shareOf,
} from "../augment/statistics.js";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

/** Masks of Paddock's own per recorded target. */
const numMasks = 20_000;

/** Block masks with every draw recorded, and statistics of many. DINOv3's are completed to exactly their target. */
export const maskGenerator: Kind = {
  name: "mask generator",
  matches: ({ config, family }) =>
    (family === "dinov2" || family === "dinov3") &&
    config.grid !== undefined &&
    Array.isArray(config.targets),
  run(golden, check) {
    const { grid, seeds, targets, stat_targets: statTargets } = supported(golden);
    const exact = golden.family === "dinov3";
    for (const seed of seeds) {
      for (const target of targets) {
        const name = `seed${seed}.target${target}`;
        const replay = replayOf(golden, check, name, {
          draws: `inputs.draws.${name}`,
          added: `inputs.added.${name}`,
        });
        check.tensor(`outputs.mask.${name}`, drawMask(replay.draws, grid, target, exact), () => 0);
        replay.end();
      }
    }
    for (const target of statTargets) compareStatistics(golden, check, target, grid, exact);
  },
};

interface Config {
  readonly grid: number;
  readonly seeds: number[];
  readonly targets: number[];
  readonly stat_targets: number[];
  readonly draws: number;
}

function supported({ config }: Golden): Config {
  const { grid, min_num_patches: smallest, max_num_patches: largest } = config;
  const aspect = (config.log_aspect_ratio ?? [Math.log(0.3), -Math.log(0.3)]) as number[];
  const isOfficial =
    Number.isInteger(grid) &&
    smallest === 4 &&
    largest === Math.floor(grid / 2) * grid &&
    aspect.every((value, i) => Math.abs(value - (i === 0 ? 1 : -1) * Math.log(0.3)) < 1e-12);
  if (!isOfficial) {
    throw new RangeError(
      "expected the generator that training uses: a square grid, blocks of 4 to half the grid, aspects 0.3 to 1 / 0.3",
    );
  }
  return { stat_targets: [], ...config } as Config;
}

function compareStatistics(
  golden: Golden,
  check: Check,
  target: number,
  grid: number,
  exact: boolean,
): void {
  const name = `outputs.stats.target${target}`;
  const n = (golden.config as Config).draws;
  const rng = maskDrawsOf(rngOf(7, target));
  let added: number[] = [];
  const draws = {
    ...rng,
    choose(candidates: readonly number[], count: number) {
      added.push(count);
      return rng.choose(candidates, count);
    },
  };
  const masks = Array.from({ length: numMasks }, () => drawMask(draws, grid, target, exact));
  added = [...added, ...new Array<number>(numMasks - added.length).fill(0)];
  const counts = masks.map((mask) => mask.reduce((sum, bit) => sum + bit, 0));
  compareCounts(golden, check, name, counts, grid);
  if (golden.has(`${name}.added_mean_max`)) {
    const [mean = 0, most = 0] = golden.f64(`${name}.added_mean_max`);
    sameMoments(check, `${name} added`, momentsOf(added), numMasks, { mean, n });
    // The largest of so few is a matter of chance; ours of more draws is at least nearly as large, and none beyond one more block.
    const ours = added.reduce((a, b) => Math.max(a, b), 0);
    check.holds(`${name} most added`, ours >= most && ours <= most + 4, `${ours}, not ${most}`);
    check.covered(`${name}.added_mean_max`);
  }
  if (exact)
    check.holds(
      name,
      counts.every((count) => count === target),
      "a mask misses its target",
    );
  const places = golden.f32(`${name}.cell_freq`);
  sameShares(
    check,
    `${name}.cell_freq`,
    Array.from(places, (_, cell) => shareOf(masks, (mask) => mask[cell] === 1)),
    Array.from(places, (share) => ({ share, n })),
  );
  check.covered(`${name}.cell_freq`);
  compareNeighbours(golden, check, `${name}.neighbour_agreement`, masks, grid, n);
}

function compareCounts(
  golden: Golden,
  check: Check,
  name: string,
  counts: number[],
  grid: number,
): void {
  const n = (golden.config as Config).draws;
  if (golden.has(`${name}.count_mean_std`)) {
    const [mean = 0, std = 0] = golden.f64(`${name}.count_mean_std`);
    sameMoments(check, `${name} count`, momentsOf(counts), numMasks, { mean, std, n });
    check.covered(`${name}.count_mean_std`);
  }
  if (golden.has(`${name}.count_hist`)) {
    const theirs = golden.i32(`${name}.count_hist`);
    const ours = new Array<number>(grid * grid + 1).fill(0);
    for (const count of counts) ours[count] = (ours[count] as number) + 1;
    sameHistogram(
      check,
      `${name}.count_hist`,
      { counts: ours, n: numMasks },
      { counts: theirs, n },
    );
    check.covered(`${name}.count_hist`);
  }
}

/** Share of neighbouring cells that are both masked or both not: down, and across. */
function compareNeighbours(
  golden: Golden,
  check: Check,
  name: string,
  masks: readonly Uint8Array[],
  grid: number,
  n: number,
): void {
  if (!golden.has(name)) return;
  const theirs = golden.f64(name);
  [grid, 1].forEach((offset, axis) => {
    const agreement = masks.map((mask) => {
      let [same, pairs] = [0, 0];
      mask.forEach((bit, cell) => {
        const isLast = offset === 1 ? cell % grid === grid - 1 : cell >= grid * (grid - 1);
        if (isLast) return;
        pairs++;
        if (bit === mask[cell + offset]) same++;
      });
      return same / pairs;
    });
    const mean = theirs[axis] as number;
    sameMoments(check, `${name} ${axis}`, momentsOf(agreement), masks.length, { mean, n });
  });
  check.covered(name);
}
