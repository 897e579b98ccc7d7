/** One of DINOv2's own config files, made tiny on the command line, trains as it is. */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { afterAll, expect, test } from "vitest";
import { paddock, readSteps, scratch } from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);
const config = fileURLToPath(
  new URL("../fixtures/official-configs/dinov2/vitl16_short.yaml", import.meta.url),
);

/** ImageNet's layout: <root>/train/<class>/*.jpeg. */
async function writeImages(root: string): Promise<void> {
  for (const [label, color] of [
    ["n01", { r: 200, g: 40, b: 40 }],
    ["n02", { r: 40, g: 40, b: 200 }],
  ] as const) {
    const directory = join(root, "train", label);
    mkdirSync(directory, { recursive: true });
    for (let i = 0; i < 8; i++) {
      const background = { ...color, g: 30 * i };
      await sharp({ create: { width: 64, height: 48, channels: 3, background } })
        .jpeg()
        .toFile(join(directory, `${i}.jpeg`));
    }
  }
}

test("vitl16_short.yaml trains with overrides, and the run directory keeps its effective recipe", async () => {
  const root = join(folder.path, "imagenet");
  await writeImages(root);
  const runDir = join(folder.path, "run");
  const { code, stdout, stderr } = await paddock([
    ...["train", "--config", config, "--run-dir", runDir, "--workers", "1", "--logical-ranks", "2"],
    ...[`train.dataset_path=ImageNet:split=TRAIN:root=${root}:extra=${root}`],
    ...["student.arch=vit_small", "train.batch_size_per_gpu=2", "optim.epochs=2"],
    ...["train.OFFICIAL_EPOCH_LENGTH=1", "optim.warmup_epochs=1", "crops.local_crops_number=2"],
    ...["crops.global_crops_size=32", "crops.local_crops_size=16", "dino.head_n_prototypes=64"],
    ...["dino.head_hidden_dim=64", "teacher.warmup_teacher_temp_epochs=1"],
    "evaluation.eval_period_iterations=0",
  ]);
  expect(code, stderr).toBe(0);
  expect(stdout).toMatch(
    /schedules\.learningRate\.peak +0\.00025 += optim\.base_lr \* sqrt\(4 \/ 1024\)/,
  );
  expect(stdout).toContain("student.block_chunks: ignored");
  const steps = readSteps(runDir);
  expect(steps).toHaveLength(2);
  for (const { loss } of steps) expect(Number.isFinite(loss)).toBe(true);
  const recipe = JSON.parse(readFileSync(join(runDir, "recipe.json"), "utf8")) as {
    kind: string;
    rows: { key: string }[];
  };
  expect(recipe.kind).toBe("dinov2");
  expect(recipe.rows).toContainEqual({
    ...{ key: "student.arch", value: "vit_small", source: "override" },
  });
  expect(readFileSync(join(runDir, "recipe.txt"), "utf8")).toMatch(/arch +vit_small +override/);
  const spec = JSON.parse(readFileSync(join(runDir, "spec.json"), "utf8")) as object;
  expect(spec).toMatchObject({
    steps: 2,
    logicalRanks: 2,
    model: { arch: "small", dropPathRate: 0.3 },
    loss: { centering: "softmax" },
    data: { path: join(root, "train") },
  });
});
