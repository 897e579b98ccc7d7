/** Our side of the bench `data`: batches on this thread, decoding on libuv's as in a worker's data thread. */

import { parseRunSpec, type RunSpecInput } from "@paddock/contract";
import { type CropBuffers, type Dataset, makeRankBatch, openDataset } from "@paddock/data";
import { serveCommands } from "./harness/sides.js";
import { measured } from "./harness/usage.js";

const [name = "grey", folder = ""] = process.argv.slice(2);

const specs: Readonly<Record<string, RunSpecInput>> = {
  grey: {
    steps: 1_000_000,
    batchPerRank: 64,
    data: { kind: "idx", path: "none" },
    model: { channels: 1, patchSize: 7 },
    crops: {
      global: { size: 28, scale: [0.4, 1] },
      local: { size: 14, scale: [0.15, 0.4] },
      localCount: 4,
      mean: [0.286],
      std: [0.353],
      color: { solarizeProbability: 0, grayscaleProbability: 0 },
    },
  },
  jpeg: {
    steps: 1_000_000,
    batchPerRank: 8,
    data: { kind: "folder", path: folder },
  },
};

/** 28 x 28 pictures in memory, as an IDX file is. */
function greyImages(): Dataset {
  const count = 4096;
  const pixels = Uint8Array.from({ length: count * 784 }, (_, i) => (i * 37 + (i >> 5)) & 255);
  return {
    count,
    classes: null,
    label: () => null,
    describe: (id) => `image ${id}`,
    load: async (id) => ({
      width: 28,
      height: 28,
      channels: 1,
      pixels: pixels.subarray(id * 784, (id + 1) * 784),
    }),
  };
}

const spec = parseRunSpec(specs[name]);
const dataset = name === "grey" ? greyImages() : await openDataset(spec.data, "train");
let buffers: CropBuffers | undefined;
let step = 0;

await serveCommands({
  async run() {
    const usage = await measured(async () => {
      buffers = await makeRankBatch(dataset, spec, step++, 0, buffers);
    });
    return { ...usage, images: spec.batchPerRank };
  },
});
