/** The torch engine against wasm on the demo's kind of step: ViT 64 wide, 2 deep, 28 x 28 grey, 4 logical ranks of 32 images. */
import type { Bench } from "./harness/bench.js";
import { rowOf } from "./harness/rows.js";
import { alternate, openOurs, pick } from "./harness/sides.js";

export const enginesBench: Bench = {
  name: "engines",
  summary: "images/s of the demo's training step on torch (ours) and wasm (peer)",
  async run(context) {
    const [torch, wasm] = ["torch", "wasm"].map((engine) =>
      openOurs("engines-side.js", [engine, String(context.threads)]),
    ) as [ReturnType<typeof openOurs>, ReturnType<typeof openOurs>];
    try {
      const { ours, peer } = await alternate(torch, wasm, { do: "run" }, { ...context, warmup: 3 });
      const [mine, theirs] = [ours[0]?.["loss"] ?? Number.NaN, peer[0]?.["loss"] ?? Number.NaN];
      if (!(Math.abs(mine - theirs) < 1e-3 * Math.abs(theirs))) {
        throw new Error(`the engines disagree: loss ${mine} on torch, ${theirs} on wasm`);
      }
      for (const [what, field] of [
        ["torch / wasm", "ms"],
        ["torch / wasm, by CPU time", "cpuMs"],
      ] as const) {
        const [a, b] = [ours, peer].map((answers) =>
          pick(answers, (answer) => (1000 * (answer["images"] ?? 0)) / (answer[field] ?? 0)),
        ) as [number[], number[]];
        context.row(rowOf({ bench: "engines", case: what, unit: "images/s" }, a, b));
      }
    } finally {
      await Promise.all([torch.close(), wasm.close()]);
    }
  },
};
