/**
 * Which patches of which global crops the student does not see: BEiT block masking (dinov2/data/masking.py, collate.py and their DINOv3
 * namesakes). Half of a rank's 2B global crops are masked; their target counts step through the ratio range, one bin each, and masks are
 * shuffled over the crops. DINOv2 draws the target within its bin, and a mask may hold fewer patches: blocks that no longer fit end it.
 * `masks.exact` (DINOv3) takes each bin's upper end and fills up with single patches, so the count per rank never varies.
 */
import {
  type MaskSpec,
  type Rng,
  type RunSpec,
  resolutionAt,
  rngOf,
  streams,
} from "@paddock/contract";

/** Masked patches of a rank's global crops. Owned by the caller. */
export interface Masks {
  /** p + i * P for patch p of P in global crop i (crop-major: all first crops, then all second ones); ascending. */
  readonly maskRows: Int32Array;
  /** Per row: 1 / masked patches of that crop. */
  readonly maskWeights: Float32Array;
}

/** The random numbers masking needs; python's names and bounds. Lets a test replay recorded draws. */
export interface MaskDraws {
  uniform(low: number, high: number): number;
  /** Integer in [low, high], both included. */
  integer(low: number, high: number): number;
  /** A permutation of 0..n-1; slot i gets mask order[i]. */
  order(n: number): ArrayLike<number>;
  /** `count` different ones of the candidates; count > 0. */
  choose(candidates: readonly number[], count: number): ArrayLike<number>;
}

/** Smallest block area that is drawn (BEiT's min_num_patches). */
const minBlock = 4;
/** Aspect ratio of blocks is log-uniform between this and its inverse. */
const minAspect = 0.3;

/** The masks of logical rank `rank` at `step`. Empty when the iBOT loss is off. */
export function drawMasks(
  spec: Pick<RunSpec, "seed" | "batchPerRank" | "masks" | "loss" | "crops" | "model">,
  step: number,
  rank: number,
): Masks {
  if (spec.loss.ibot === 0) return packMasks([]);
  const grid = resolutionAt(spec, step).global / spec.model.patchSize;
  const draws = maskDrawsOf(rngOf(spec.seed, streams.mask, step, rank));
  return packMasks(collateMasks(draws, 2 * spec.batchPerRank, grid, spec.masks));
}

/** One mask per crop, 1 = masked, row-major over the grid. */
export function collateMasks(
  draws: MaskDraws,
  crops: number,
  grid: number,
  spec: MaskSpec,
): Uint8Array[] {
  const numMasked = Math.floor(crops * spec.probability);
  const exactTargets = spec.exact ? upperTargets(grid * grid, numMasked, spec.ratio) : null;
  const edge = (i: number): number =>
    spec.ratio[0] + ((spec.ratio[1] - spec.ratio[0]) * i) / numMasked;
  const targetOf = (i: number): number =>
    exactTargets
      ? (exactTargets[i] as number)
      : Math.floor(grid * grid * draws.uniform(edge(i), edge(i + 1)));
  const masks: Uint8Array[] = [];
  for (let i = 0; i < crops; i++) {
    const isMasked = i < numMasked;
    const mask = drawMask(draws, grid, isMasked ? targetOf(i) : 0, spec.exact);
    masks.push(isMasked && spec.circularShift ? shifted(draws, mask, grid) : mask);
  }
  const order = draws.order(crops);
  return masks.map((_, i) => masks[order[i] as number] as Uint8Array);
}

/**
 * Masked patches at the upper end of each of `bins` equal bins of the ratio range. In single precision, as the reference computes them:
 * where a product is whole, the rounding decides about a patch.
 */
export function upperTargets(
  patches: number,
  bins: number,
  [low, high]: readonly [number, number],
): number[] {
  const { fround } = Math;
  const step = fround(fround(fround(high) - fround(low)) / bins);
  // torch.linspace counts from both ends towards the middle.
  const edge = (i: number): number =>
    i < Math.floor((bins + 1) / 2)
      ? fround(fround(low) + fround(step * i))
      : fround(fround(high) - fround(step * (bins - i)));
  return Array.from({ length: bins }, (_, i) => Math.floor(fround(patches * edge(i + 1))));
}

/** The mask rolled by a random number of rows and columns. */
function shifted(draws: MaskDraws, mask: Uint8Array, grid: number): Uint8Array {
  const rows = draws.integer(0, grid - 1);
  const columns = draws.integer(0, grid - 1);
  const rolled = new Uint8Array(mask.length);
  mask.forEach((bit, patch) => {
    const y = (Math.floor(patch / grid) + rows) % grid;
    rolled[y * grid + (((patch % grid) + columns) % grid)] = bit;
  });
  return rolled;
}

/**
 * A mask of at most `target` patches, or of exactly so many. Blocks are strictly smaller than the grid, so a grid of 2 x 2 only fits single
 * patches (drawn as such; the reference would rarely find one) and a grid of 1 x 1 has no block.
 */
export function drawMask(
  draws: MaskDraws,
  grid: number,
  target: number,
  exact: boolean,
): Uint8Array {
  const mask = new Uint8Array(grid * grid);
  const largest = maxPatches(grid);
  let masked = 0;
  while (masked < target) {
    const added = addBlock(draws, mask, grid, Math.min(target - masked, largest));
    if (added === 0) break;
    masked += added;
  }
  if (exact && masked < target) {
    const free = Array.from(mask.keys()).filter((patch) => mask[patch] === 0);
    for (const patch of Array.from(draws.choose(free, target - masked))) mask[patch] = 1;
  }
  return mask;
}

/** The reference's `0.5 * img // p * img // p`, evaluated left to right: half the side, floored, times the side. */
function maxPatches(grid: number): number {
  return Math.floor(grid / 2) * grid;
}

/** Adds one block that covers 1 to `limit` new patches, in at most ten tries. Returns how many it covers: 0 = gave up. */
function addBlock(draws: MaskDraws, mask: Uint8Array, grid: number, limit: number): number {
  const smallest = Math.min(minBlock, (grid - 1) ** 2);
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = draws.uniform(smallest, limit);
    const aspect = Math.exp(draws.uniform(Math.log(minAspect), -Math.log(minAspect)));
    const height = Math.round(Math.sqrt(area * aspect));
    const width = Math.round(Math.sqrt(area / aspect));
    if (height >= grid || width >= grid) continue;
    const top = draws.integer(0, grid - height);
    const left = draws.integer(0, grid - width);
    const rows = blockRows(grid, top, left, height, width);
    const fresh = rows.filter((patch) => mask[patch] === 0);
    if (0 < fresh.length && fresh.length <= limit) {
      for (const patch of fresh) mask[patch] = 1;
      return fresh.length;
    }
  }
  return 0;
}

function blockRows(
  grid: number,
  top: number,
  left: number,
  height: number,
  width: number,
): number[] {
  return Array.from(
    { length: height * width },
    (_, i) => (top + Math.floor(i / width)) * grid + left + (i % width),
  );
}

/** Masks of equal size as row indices and weights. */
export function packMasks(masks: readonly Uint8Array[]): Masks {
  const counts = masks.map((mask) => mask.reduce((sum, bit) => sum + bit, 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const maskRows = new Int32Array(new SharedArrayBuffer(4 * total));
  const maskWeights = new Float32Array(new SharedArrayBuffer(4 * total));
  let row = 0;
  masks.forEach((mask, i) => {
    mask.forEach((bit, patch) => {
      if (bit === 0) return;
      maskRows[row] = patch + i * mask.length;
      maskWeights[row] = 1 / (counts[i] as number);
      row++;
    });
  });
  return { maskRows, maskWeights };
}

/** Draws of a stream. */
export function maskDrawsOf(rng: Rng): MaskDraws {
  return {
    uniform: (low, high) => rng.between(low, high),
    integer: (low, high) => low + rng.below(high - low + 1),
    order: (n) => rng.permutation(n),
    choose: (candidates, count) =>
      Array.from(
        rng.permutation(candidates.length).subarray(0, count),
        (i) => candidates[i] as number,
      ),
  };
}
