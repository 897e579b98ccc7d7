/** One trajectory: losses and gradient norms do not depend on the number of workers, to the last bit. See also collective-training.test.ts. */
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { paddock, readSteps, scratch, trajectory, writeTinyRun } from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

async function run(name: string, args: readonly string[], changes = {}): Promise<string> {
  const runDir = join(folder.path, name);
  const spec = writeTinyRun(folder.path, changes);
  const { code, stderr } = await paddock(["train", spec, "--run-dir", runDir, "--json", ...args]);
  expect(code, stderr).toBe(0);
  return runDir;
}

test.each(["fp32", "fp16"] as const)(
  "20 steps on 1, 2 and 3 workers are bit-identical with %s exchange",
  async (dtype) => {
    const runs: string[] = [];
    for (const workers of [1, 2, 3]) {
      runs.push(
        await run(`${dtype}-w${workers}`, [
          "--workers",
          String(workers),
          "--exchange-dtype",
          dtype,
        ]),
      );
    }
    const [one, two, three] = runs.map(trajectory);
    expect(one).toHaveLength(20);
    expect(two).toEqual(one);
    expect(three).toEqual(one);
    expect(readSteps(runs[2] as string).every((step) => step.workers === 3)).toBe(true);
    expect(readSteps(runs[0] as string).every((step) => Number.isFinite(step.loss))).toBe(true);
  },
);

test("softmax centring, whose centre is state, also gives one trajectory", async () => {
  const changes = { steps: 8, loss: { centering: "softmax" as const } };
  const one = await run("softmax-w1", ["--workers", "1"], changes);
  const three = await run("softmax-w3", ["--workers", "3"], changes);
  expect(trajectory(three)).toEqual(trajectory(one));
});

test("a run in DINO's way, with LARS and each tensor clipped by itself, also gives one trajectory", async () => {
  const changes = {
    steps: 6,
    model: { width: 32, depth: 2, heads: 2, patchSize: 7, channels: 1, layerScale: 0 },
    heads: {
      dino: { prototypes: 64, bottleneck: 16, hidden: 32, layers: 2, freezeMagnitude: true },
    },
    loss: { centering: "softmax" as const, ibot: 0, koleo: 0 },
    schedules: { learningRate: { peak: 0.1 }, freezeLastLayerSteps: 2 },
    optimizer: {
      kind: "lars" as const,
      clipBy: "tensor" as const,
      clipNorm: 0.01,
      decay: "matrices" as const,
      freezeLastLayer: "gradient" as const,
      layerDecay: 1,
      patchEmbedMultiplier: 1,
    },
  };
  const one = await run("lars-w1", ["--workers", "1"], changes);
  const three = await run("lars-w3", ["--workers", "3"], changes);
  expect(trajectory(one)).toHaveLength(6);
  expect(trajectory(three)).toEqual(trajectory(one));
});

test("fp16 exchange is really used: its trajectory differs from that of fp32", async () => {
  const half = readSteps(join(folder.path, "fp16-w1")).map((step) => step.loss);
  const full = readSteps(join(folder.path, "fp32-w1")).map((step) => step.loss);
  expect(half).not.toEqual(full);
});
