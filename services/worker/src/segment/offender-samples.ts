/** Which samples a logical rank had when something in its step was not finite; and samples that make it so, for tests. */
import type { RankBatch } from "@paddock/data";
import type { Offender } from "@paddock/proto";
import type { Seen } from "./offender.js";

/** With the ids of the samples that the rank really used: replacements of undecodable images included. */
export function withSamples(seen: Seen, batches: readonly RankBatch[]): Offender {
  const batch = batches.find(({ rank }) => rank === seen.rank);
  return { ...seen, samples: [...(batch?.sampleIds ?? [])] };
}

/**
 * For tests: fills the global crops of these samples with values that are no numbers, as a broken decoder or bad memory could.
 * @param ids comma-separated sample ids; undefined: nothing is spoilt
 */
export function poisonOf(
  ids: string | undefined,
): ((batches: readonly RankBatch[]) => void) | undefined {
  if (!ids) return undefined;
  const poisoned = new Set(ids.split(",").map(Number));
  return (batches) => {
    for (const { sampleIds, globalCrops } of batches) {
      const images = sampleIds.length;
      const crop = globalCrops.length / (2 * images);
      sampleIds.forEach((id, image) => {
        if (!poisoned.has(id)) return;
        for (const row of [image, image + images]) {
          globalCrops.fill(Number.NaN, row * crop, (row + 1) * crop);
        }
      });
    }
  };
}
