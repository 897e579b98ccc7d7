/** Four stages from one spec on pieces of a photo: end to end, and killed once inside each. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { RunSpecInput } from "@paddock/contract";
import sharp from "sharp";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readGolden } from "../golden/file.js";
import { killAll } from "../support/kill.js";
import {
  paddock,
  readSteps,
  scratch,
  startPaddock,
  trajectory,
  until,
} from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const names = ["1-pretrain", "2-gram", "3-high-resolution", "4-distil"];
const photo = fileURLToPath(
  new URL("../fixtures/golden/augment/photo.safetensors", import.meta.url),
);

/** 24 pieces of the recorded photo. */
async function writePieces(directory: string): Promise<void> {
  mkdirSync(directory);
  const golden = readGolden(photo);
  const [height = 0, width = 0] = golden.shape("inputs.photo");
  const image = sharp(golden.u8("inputs.photo"), { raw: { width, height, channels: 3 } });
  for (let i = 0; i < 24; i++) {
    const piece = { left: 60 * (i % 6), top: 70 * Math.floor(i / 6), width: 80, height: 80 };
    await image
      .clone()
      .extract(piece)
      .png()
      .toFile(join(directory, `${i}.png`));
  }
}

const head = { prototypes: 32, bottleneck: 16, hidden: 32, layers: 2, weightNorm: false };
const constant = (value: number) =>
  ({ kind: "warmup-cosine", start: value, peak: value, end: value }) as const;

function stagedSpec(images: string): object {
  const common: RunSpecInput = {
    name: "four",
    steps: 8,
    logicalRanks: 3,
    batchPerRank: 2,
    model: {
      width: 32,
      depth: 2,
      heads: 2,
      patchSize: 8,
      layerScale: 0.5,
      registers: 1,
      positions: "rope",
      rope: { rescale: 2 },
      dropPathRate: 0.2,
    },
    heads: { dino: head, ibot: head },
    data: { path: images },
    crops: {
      global: { size: 32, scale: [0.4, 1] },
      local: { size: 16, scale: [0.1, 0.4] },
      localCount: 2,
    },
    masks: { exact: true },
    schedules: { learningRate: constant(1e-3), momentum: constant(0.9) },
    exchange: { dtype: "fp16", initialScale: 256 },
    evaluation: { everySteps: 0 },
    checkpoint: { everySteps: 3 },
    fleet: { workers: 2, segmentSteps: 4 },
  };
  return {
    ...common,
    stages: [
      { name: "pretrain" },
      {
        name: "gram",
        init: { load: "resume" },
        steps: 16,
        crops: { gramSize: 48, gramUndistorted: true },
        loss: { gram: { update: { every: 4, first: 10, max: 1 }, antialias: true } },
      },
      {
        name: "high-resolution",
        init: { load: "teacher" },
        loss: { gram: { teacher: "ema" } },
        crops: {
          gramSize: null,
          resolutions: [
            { global: 32, local: 16, ratio: 0.5 },
            { global: 48, local: 24, ratio: 0.5 },
          ],
        },
      },
      { name: "distil", distillation: {}, loss: { gram: null }, model: { width: 16, heads: 1 } },
    ],
  };
}

let spec: string;
let undisturbed: Record<string, string[]>;

const trajectories = (runDir: string): Record<string, string[]> =>
  Object.fromEntries(names.map((name) => [name, trajectory(join(runDir, name))]));

beforeAll(async () => {
  const images = join(folder.path, "pieces");
  await writePieces(images);
  spec = join(folder.path, "spec.json");
  writeFileSync(spec, JSON.stringify(stagedSpec(images)));
  const runDir = join(folder.path, "undisturbed");
  const { code, stderr } = await paddock(["train", spec, "--run-dir", runDir]);
  expect(code, stderr).toBe(0);
  undisturbed = trajectories(runDir);
});

test("four stages run to their ends, each from where the one before ended", () => {
  const stepsOf = (name: string): number[] =>
    (undisturbed[name] ?? []).map((line) => JSON.parse(line).step);
  const range = (start: number, end: number) =>
    Array.from({ length: end - start }, (_, i) => start + i);
  expect(names.map(stepsOf)).toEqual([range(0, 8), range(8, 16), range(0, 8), range(0, 8)]);
  const grams = names.map((name) =>
    (undisturbed[name] ?? []).map((line) => JSON.parse(line).losses.gram),
  );
  expect(grams[0]?.every((gram) => gram === 0)).toBe(true);
  // The gram teacher is the teacher at the stage's start, then as it was after step 11: the loss grows in between.
  expect(grams[1]?.every((gram) => gram > 0)).toBe(true);
  expect(grams[2]?.every((gram) => gram > 0)).toBe(true);
  expect(grams[3]?.every((gram) => gram === 0)).toBe(true);
});

test("a SIGKILL inside each stage, and resumes with other numbers of workers: the same losses to the last bit", async () => {
  const runDir = join(folder.path, "killed");
  const killInside = async (args: readonly string[], name: string): Promise<void> => {
    const started = startPaddock(args);
    await until(`step 4 of ${name}`, 90, () => readSteps(join(runDir, name)).length >= 4);
    await killAll(started);
    expect(readSteps(join(runDir, name)).length).toBeLessThan(8);
  };
  await killInside(["train", spec, "--run-dir", runDir], "1-pretrain");
  await killInside(["resume", runDir, "--workers", "3"], "2-gram");
  await killInside(["resume", runDir, "--workers", "1"], "3-high-resolution");
  await killInside(["resume", runDir, "--workers", "2"], "4-distil");
  const { code, stderr } = await paddock(["resume", runDir, "--workers", "3"]);
  expect(code, stderr).toBe(0);
  expect(trajectories(runDir)).toEqual(undisturbed);
});

test("a stage that cannot be is refused before anything runs, with its name", async () => {
  const broken = join(folder.path, "broken.json");
  const images = join(folder.path, "pieces");
  writeFileSync(
    broken,
    JSON.stringify({ ...stagedSpec(images), stages: [{ name: "a" }, { name: "b", stepz: 3 }] }),
  );
  const { code, stderr } = await paddock(["train", broken, "--run-dir", join(folder.path, "no")]);
  expect(code).toBe(2);
  expect(stderr).toContain("stage b");
  expect(stderr).toContain('did you mean "steps"');
});
