import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRunSpec, type RunSpecInput } from "@paddock/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { pinOrigins, startOf, withPinsOf } from "./origins.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock-origins-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const specOf = (changes: Partial<RunSpecInput>) =>
  parseRunSpec({ steps: 20, batchPerRank: 2, data: { path: "x" }, ...changes });

/** A checkpoint as far as it is looked at here; returns its hash. */
async function writeCheckpoint(step: number): Promise<string> {
  const text = JSON.stringify({ step, scaler: { scale: 512, goodSteps: 7 } });
  await mkdir(join(dir, "c"), { recursive: true });
  await writeFile(join(dir, "c", "manifest.json"), text);
  return createHash("sha256").update(text).digest("hex");
}

test("the hashes of all checkpoints that a spec names are written down", async () => {
  const sha256 = await writeCheckpoint(5);
  const checkpoint = join(dir, "c");
  const pinned = await pinOrigins(
    specOf({ init: { checkpoint, load: "teacher" }, loss: { gram: { checkpoint } } }),
  );
  expect([pinned.init?.sha256, pinned.loss.gram?.sha256]).toEqual([sha256, sha256]);
  expect((await pinOrigins(specOf({}))).init).toBeNull();
});

test("a checkpoint that is missing, or another than the spec's hash says, is refused", async () => {
  await writeCheckpoint(5);
  const checkpoint = join(dir, "c");
  const other = specOf({ init: { checkpoint, sha256: "0".repeat(64) } });
  await expect(pinOrigins(other)).rejects.toMatchObject({ code: "checkpoint-corrupt" });
  const missing = specOf({ init: { checkpoint: join(dir, "none") } });
  await expect(pinOrigins(missing)).rejects.toMatchObject({ code: "not-found" });
});

test("a resumed run keeps the hashes that it was started with, though the checkpoint be gone", () => {
  const origin = { checkpoint: join(dir, "gone"), load: "teacher" } as const;
  const recorded = specOf({ init: { ...origin, sha256: "a".repeat(64) } });
  expect(withPinsOf(recorded, specOf({ init: origin }))).toEqual(recorded);
  const own = specOf({ init: { ...origin, sha256: "b".repeat(64) } });
  expect(withPinsOf(recorded, own).init?.sha256).toBe("b".repeat(64));
});

test("only resuming goes on from the checkpoint's step and scale, which must lie before the end", async () => {
  await writeCheckpoint(5);
  const checkpoint = join(dir, "c");
  const resume = { init: { checkpoint, load: "resume" } } as const;
  expect(await startOf(specOf(resume))).toEqual({ step: 5, scaler: { scale: 512, goodSteps: 7 } });
  expect(await startOf(specOf({ init: { checkpoint, load: "teacher" } }))).toBeUndefined();
  await expect(startOf(specOf({ ...resume, steps: 5 }))).rejects.toThrow("more than the 5");
});
