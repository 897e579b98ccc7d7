/** The default pipeline never changes: runs that are under way continue with the same images, crops and masks. */
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { makeRankBatch, type RankBatch } from "./batch.js";
import type { Dataset } from "./datasets/dataset.js";
import type { Channels } from "./image.js";
import { pattern } from "./testing/images.js";
import { greySpec, officialSpec } from "./testing/spec.js";

/** Images of several sizes, made from their ids. */
function patterns(channels: Channels): Dataset {
  return {
    count: 17,
    classes: null,
    label: () => null,
    describe: String,
    load: async (id) => {
      const [width, height] = [40 + 7 * id, 90 - 3 * id];
      return { width, height, channels, pixels: pattern(width, height, channels, id) };
    },
  };
}

function hashOf({ globalCrops, localCrops, maskRows, maskWeights }: RankBatch): string {
  const hash = createHash("sha256");
  for (const array of [globalCrops, localCrops, maskRows, maskWeights]) {
    if (array) hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  }
  return hash.digest("hex").slice(0, 16);
}

test.each([
  {
    name: "grey",
    spec: greySpec(),
    channels: 1 as const,
    wanted: "50c8561dc749e967 74b30c92f0b011ee",
  },
  {
    name: "official",
    spec: officialSpec(),
    channels: 3 as const,
    wanted: "b49a8aa2d4ab1d62 c400e99e29fba11b",
  },
])(
  "a batch of the $name spec is the one made by the first version",
  async ({ spec, channels, wanted }) => {
    const batches = [
      await makeRankBatch(patterns(channels), spec, 3, 1),
      await makeRankBatch(patterns(channels), spec, 4, 2),
    ];
    expect(batches.map(hashOf).join(" ")).toBe(wanted);
  },
);
