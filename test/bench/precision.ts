/**
 * What low precision does to learning: the main job (deploy/runs/fashion-mnist.yaml, its own images) for 500 steps with products in
 * bf16 (ours) and fp32 (peer), k-NN at the end, one pair a seed; and the first gradients of the ViT-S/16 step, bf16 against fp32.
 * `--precision fp16` compares that instead; `--pairs` is the number of seeds.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { paddock } from "../support/paddock.js";
import { type Bench, type BenchContext, isAsked } from "./harness/bench.js";
import { rowOf } from "./harness/rows.js";
import { openOurs } from "./harness/sides.js";

const mainJob = fileURLToPath(new URL("../../../deploy/runs/fashion-mnist.yaml", import.meta.url));
const steps = 500;

export const precisionBench: Bench = {
  name: "precision",
  summary: "k-NN of the main job after 500 steps, and first gradients, in bf16 against fp32",
  async run(context) {
    const low = context.precision === "fp32" ? "bf16" : context.precision;
    if (isAsked(context, "gradients")) await compareGradients(context, low);
    if (isAsked(context, "learning")) await compareLearning(context, low);
  },
};

async function compareLearning(context: BenchContext, low: "bf16" | "fp16"): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "paddock-bench-"));
  try {
    const results = { low: [] as number[], fp32: [] as number[] };
    for (let seed = 0; seed < context.pairs; seed++) {
      results.low.push(await knnAfter(join(folder, `${seed}-low`), seed, low));
      results.fp32.push(await knnAfter(join(folder, `${seed}-fp32`), seed, "fp32"));
      const [a, b] = [results.low[seed], results.fp32[seed]];
      context.say(`seed ${seed}: k-NN ${a?.toFixed(2)} % in ${low}, ${b?.toFixed(2)} % in fp32`);
    }
    const name = {
      bench: "precision",
      case: `main job, ${steps} steps, ${low} / fp32`,
      unit: "k-NN %",
    };
    context.row(rowOf(name, results.low, results.fp32));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Percent of the queries, at the end of a run with one worker: the numbers of any other fleet. */
async function knnAfter(runDir: string, seed: number, precision: string): Promise<number> {
  const { code, stderr } = await paddock([
    "train",
    mainJob,
    ...["--run-dir", runDir, "--steps", String(steps), "--seed", String(seed), "--workers", "1"],
    `engine.precision=${precision}`,
    `evaluation.everySteps=${steps}`,
  ]);
  if (code !== 0) throw new Error(`the main job ended with ${code}: ${stderr}`);
  const summary: { knn: { end: number } } = JSON.parse(
    readFileSync(join(runDir, "summary.json"), "utf8"),
  );
  return 100 * summary.knn.end;
}

async function compareGradients(context: BenchContext, low: "bf16" | "fp16"): Promise<void> {
  const side = openOurs("precision-side.js", [
    JSON.stringify({ threads: context.threads, device: context.device, batch: context.batch, low }),
  ]);
  try {
    // At its start ViT-S tells two noise images apart by one part in 1e5 (LayerScale), and KoLeo's gradient is one over that distance.
    for (const [what, koleo] of [
      ["", 0.1],
      [", without KoLeo", 0],
    ] as const) {
      for (const [of, distance] of Object.entries(await side.ask({ do: "run", koleo }))) {
        const name = `ViT-S step, first gradient${what}, ${of}, ${low} from fp32`;
        context.row(rowOf({ bench: "precision", case: name, unit: "relative" }, [distance]));
      }
    }
  } finally {
    await side.close();
  }
}
