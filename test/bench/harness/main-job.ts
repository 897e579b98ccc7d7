/** The demo as a user runs it, a fleet of real processes, as one side of a comparison: a measurement is one short run. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseRunSpec, type RunSpec, type RunSpecInput, type StepRecord } from "@paddock/contract";
import { parse } from "yaml";
import { cliFile, paddock, readSteps } from "../../support/paddock.js";
import { startTestRedis } from "../../support/redis.js";
import { Unavailable } from "./bench.js";
import type { Side } from "./sides.js";

const specPath = fileURLToPath(
  new URL("../../../../deploy/runs/fashion-mnist.yaml", import.meta.url),
);

/** Steps at the start of a run that do not count: code is compiled and caches fill. */
const warmupSteps = 10;

/** The demo's spec, as it is in deploy/runs. */
export function mainJobSpec(): RunSpec {
  const input: RunSpecInput = parse(readFileSync(specPath, "utf8"));
  return parseRunSpec(input);
}

/**
 * Runs of `steps` counted steps on an engine, without checkpoints and evaluations. The answer: `ms`, the median from one committed
 * step to the next, `images` a step and the `loss` after ten steps. Brings a Redis of its own.
 * @param o.checkout another built checkout of Paddock whose command runs it
 */
export async function openMainJob(
  engine: string,
  workers: number,
  steps: number,
  o: { readonly overrides?: readonly string[]; readonly checkout?: string | undefined } = {},
): Promise<Side> {
  const cli = o.checkout === undefined ? cliFile : join(o.checkout, "services/cli/bin/paddock.mjs");
  const folder = mkdtempSync(join(tmpdir(), "paddock-bench-"));
  const redis = await startTestRedis(folder);
  let runs = 0;
  return {
    async ask() {
      runs += 1;
      const runDir = join(folder, `run-${runs}`);
      const settings = [
        `steps=${warmupSteps + steps}`,
        "evaluation.everySteps=0",
        `checkpoint.everySteps=${10 * steps}`,
      ];
      const { code, stderr } = await paddock(
        [
          ...["train", specPath, "--run-dir", runDir, "--redis", redis.url, "--engine", engine],
          ...["--workers", String(workers), ...settings, ...(o.overrides ?? [])],
        ],
        cli,
      );
      if (code === 3) throw new Unavailable(stderr);
      if (code !== 0) throw new Error(`the run on ${engine} ended with code ${code}: ${stderr}`);
      const records = readSteps(runDir);
      const last = records.at(-1);
      if (!last) throw new Error(`the run on ${engine} wrote no steps: ${stderr}`);
      return {
        ms: medianInterval(records.slice(warmupSteps - 1)),
        images: last.images,
        loss: records[warmupSteps - 1]?.loss ?? Number.NaN,
      };
    },
    async close() {
      await redis.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Milliseconds between commits; the median, because a checkpoint or a pause of the machine is no step. */
function medianInterval(records: readonly StepRecord[]): number {
  const times = records.map(({ unixMs }) => unixMs);
  const intervals = times.slice(1).map((time, i) => time - (times[i] as number));
  return intervals.toSorted((a, b) => a - b)[Math.floor(intervals.length / 2)] ?? Number.NaN;
}
