/** One engine of the bench `engines`: training steps of the main job. */
import { type EngineName, openEngine } from "@paddock/engine";
import { mainJobSpec } from "./harness/main-job.js";
import { serveCommands } from "./harness/sides.js";
import { noiseBatch, startTraining } from "./harness/training.js";
import { measured } from "./harness/usage.js";

const [name = "torch", threads = "1"] = process.argv.slice(2);
const spec = mainJobSpec();
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
