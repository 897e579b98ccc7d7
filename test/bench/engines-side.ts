/** One engine of the bench `engines`: steps of the demo's shape. */
import { parseRunSpec } from "@paddock/contract";
import { type EngineName, openEngine } from "@paddock/engine";
import { serveCommands } from "./harness/sides.js";
import { noiseBatch, startTraining } from "./harness/training.js";
import { measured } from "./harness/usage.js";

const [name = "torch", threads = "1"] = process.argv.slice(2);
const spec = parseRunSpec({
  steps: 1000,
  logicalRanks: 4,
  batchPerRank: 32,
  data: { kind: "idx", path: "none" },
  model: { width: 64, depth: 2, heads: 2, patchSize: 7, channels: 1, layerScale: 0.1 },
  heads: { dino: { prototypes: 256, bottleneck: 64, hidden: 256, layers: 2 } },
  crops: {
    global: { size: 28, scale: [0.4, 1] },
    local: { size: 14, scale: [0.15, 0.4] },
    localCount: 2,
    mean: [0.286],
    std: [0.353],
  },
});
const engine = await openEngine({ name: name as EngineName, threads: Number(threads) });
const training = startTraining(spec, engine);
const batches = Array.from({ length: spec.logicalRanks }, (_, rank) => noiseBatch(spec, rank));

await serveCommands({
  async run() {
    let loss = Number.NaN;
    const usage = await measured(async () => {
      loss = await training.step(batches);
    });
    return { ...usage, loss, images: spec.logicalRanks * spec.batchPerRank };
  },
});
