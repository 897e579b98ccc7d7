/**
 * The torch engine against wasm on the main job (deploy/runs/fashion-mnist.yaml): the whole job as a user runs it, with one worker
 * and with two, and its training step alone, without a fleet around it.
 */
import { type Bench, type BenchContext, isAsked } from "./harness/bench.js";
import { openMainJob } from "./harness/main-job.js";
import { rowOf } from "./harness/rows.js";
import { type Answer, alternate, openOurs, pick, type Side } from "./harness/sides.js";

const engines = ["torch", "wasm"] as const;

/** Counted steps of a run: some seconds of each engine. */
const jobSteps = { torch: 60, wasm: 20 };

const cases = [
  { name: "job", what: "main job, 1 worker", workers: 1 },
  { name: "job-2", what: "main job, 2 workers", workers: 2 },
] as const;

export const enginesBench: Bench = {
  name: "engines",
  summary: "images/s of the main job (cases job, job-2, step) on torch (ours) and wasm (peer)",
  async run(context) {
    for (const { name, what, workers } of cases) {
      if (!isAsked(context, name)) continue;
      await compare(context, `${what}: torch / wasm`, ["ms"], 0, (engine) =>
        openMainJob(engine, workers, jobSteps[engine]),
      );
    }
    if (!isAsked(context, "step")) return;
    await compare(context, "step alone: torch / wasm", ["ms", "cpuMs"], 3, async (engine) =>
      openOurs("engines-side.js", [engine, String(context.threads)]),
    );
  },
};

/** One row per quantity of time. The engines' losses must agree: they do the same work. */
async function compare(
  context: BenchContext,
  what: string,
  fields: readonly ("ms" | "cpuMs")[],
  warmup: number,
  open: (engine: (typeof engines)[number]) => Promise<Side>,
): Promise<void> {
  const [torch, wasm] = (await Promise.all(engines.map(open))) as [Side, Side];
  try {
    const { ours, peer } = await alternate(torch, wasm, { do: "run" }, { ...context, warmup });
    const [mine, theirs] = [ours[0]?.["loss"] ?? Number.NaN, peer[0]?.["loss"] ?? Number.NaN];
    if (!(Math.abs(mine - theirs) < 1e-3 * Math.abs(theirs))) {
      throw new Error(`the engines disagree: loss ${mine} on torch, ${theirs} on wasm`);
    }
    for (const field of fields) {
      const perSecond = (answer: Answer) => (1000 * (answer["images"] ?? 0)) / (answer[field] ?? 0);
      const name = field === "ms" ? what : `${what}, by CPU time`;
      const [a, b] = [pick(ours, perSecond), pick(peer, perSecond)];
      context.row(rowOf({ bench: "engines", case: name, unit: "images/s" }, a, b));
    }
  } finally {
    await Promise.all([torch.close(), wasm.close()]);
  }
}
