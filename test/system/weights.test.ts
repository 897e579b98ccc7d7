/** A backbone out of one run and into another, through the real command line. */
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { paddock, readSteps, scratch, trajectory, writeTinyRun } from "../support/paddock.js";

const dir = scratch();
afterAll(() => dir.remove());

async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await paddock(args);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return stdout;
}

test("a run from an exported file is the run from the checkpoint, for any number of workers", async () => {
  const spec = writeTinyRun(dir.path, {
    steps: 2,
    checkpoint: { everySteps: 2 },
    engine: { name: "wasm" },
  });
  const runDir = (name: string): string => join(dir.path, name);
  await done("train", spec, "--run-dir", runDir("first"));
  const { out } = JSON.parse(
    await done("export", runDir("first"), "--format", "transformers", "--json"),
  ) as { out: string };
  expect(await done("import", out, "--spec", spec)).toContain("transformers Dinov2Model");
  const from = (checkpoint: string, name: string, workers: string): Promise<string> => {
    const init = [`init.checkpoint=${checkpoint}`, "init.load=backbone"];
    return done("train", spec, ...init, "--workers", workers, "--run-dir", runDir(name));
  };
  await from(join(out, "model.safetensors"), "from-file", "2");
  await from(join(runDir("first"), "checkpoints", "2"), "from-checkpoint", "1");
  expect(trajectory(runDir("from-file"))).toEqual(trajectory(runDir("from-checkpoint")));
  expect(readSteps(runDir("from-file"))[0]?.loss).not.toBe(readSteps(runDir("first"))[0]?.loss);
});
