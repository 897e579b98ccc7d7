/** The bench `precision`'s gradients: one step of ViT-S/16 with the official crops, from one state, in two precisions. */
import { parseRunSpec, type RunSpec } from "@paddock/contract";
import { openEngine } from "@paddock/engine";
import type { Precision } from "@paddock/model";
import { serveCommands } from "./harness/sides.js";
import { noiseBatch, startTraining } from "./harness/training.js";

interface Options {
  readonly threads: number;
  readonly device: string;
  readonly batch: number;
  readonly low: Precision;
}

const options: Options = JSON.parse(process.argv[2] ?? "{}");
const engine = await openEngine({ name: "torch", ...options });

function specOf(precision: Precision, koleo: number): RunSpec {
  return parseRunSpec({
    steps: 1000,
    logicalRanks: 1,
    batchPerRank: options.batch,
    data: { path: "none" },
    fleet: { workers: 1 },
    model: { arch: "small" },
    loss: { koleo },
    engine: { precision },
  });
}

async function firstGradients(
  precision: Precision,
  koleo: number,
): Promise<ReadonlyMap<string, Float32Array>> {
  const spec = specOf(precision, koleo);
  let gradients: ReadonlyMap<string, Float32Array> = new Map();
  const training = startTraining(spec, engine, (ofStep) => {
    gradients = ofStep;
  });
  await training.step([noiseBatch(spec, 0)]);
  return gradients;
}

function distance(a: Float32Array, b: Float32Array): { difference: number; size: number } {
  const sums = { difference: 0, size: 0 };
  for (let i = 0; i < b.length; i++) {
    const [mine, wanted] = [a[i] as number, b[i] as number];
    sums.difference += (mine - wanted) ** 2;
    sums.size += wanted ** 2;
  }
  return sums;
}

await serveCommands({
  /** |low - fp32| / |fp32| of all units together, and of the worst one. `koleo`: the loss's weight. */
  async run({ koleo }) {
    const low = await firstGradients(options.low, Number(koleo));
    const exact = await firstGradients("fp32", Number(koleo));
    const whole = { difference: 0, size: 0 };
    let worst = 0;
    for (const [unit, gradient] of exact) {
      const part = distance(low.get(unit) as Float32Array, gradient);
      whole.difference += part.difference;
      whole.size += part.size;
      worst = Math.max(worst, Math.sqrt(part.difference / part.size));
    }
    return { "all units": Math.sqrt(whole.difference / whole.size), "worst unit": worst };
  },
});
