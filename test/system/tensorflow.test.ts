/** Runs on the `tensorflow` engine, in real workers, where it has been set up (npm run setup:tensorflow). */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describeEngines } from "@paddock/engine";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  paddock,
  readSteps,
  scratch,
  startPaddock,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const engine = describeEngines().find(({ name }) => name === "tensorflow");
const why = engine?.available ? "" : `(skipped: ${engine?.note})`;

function argsOf(name: string, ...more: string[]): { runDir: string; args: string[] } {
  const runDir = join(folder.path, name);
  return { runDir, args: ["train", writeTinyRun(folder.path), "--run-dir", runDir, ...more] };
}

async function run(name: string, ...more: string[]): Promise<string> {
  const { runDir, args } = argsOf(name, ...more);
  const { code, stderr } = await paddock(args);
  expect(code, stderr).toBe(0);
  const { engine: used } = JSON.parse(readFileSync(join(runDir, "summary.json"), "utf8"));
  expect(used).toBe(name.split("-")[0]);
  return runDir;
}

describe.skipIf(!engine?.available)(`tensorflow ${why}`, () => {
  let one = "";
  beforeAll(async () => {
    one = await run("tensorflow-1", "--engine", "tensorflow", "--workers", "1");
  });

  test("1 and 2 workers are bit-identical, and learn what wasm learns", async () => {
    const two = await run("tensorflow-2", "--engine", "tensorflow", "--workers", "2");
    expect(trajectory(one)).toHaveLength(20);
    expect(trajectory(two)).toEqual(trajectory(one));
    const wasm = readSteps(await run("wasm-1", "--engine", "wasm", "--workers", "1"));
    // A whole step's float32 noise, see test/numerics/engines.test.ts; later steps amplify it.
    expect(readSteps(one)[0]?.loss).toBeCloseTo(wasm[0]?.loss ?? Number.NaN, 4);
  });

  test("survivors of a lost worker load TensorFlow again in a new engine thread", async () => {
    const { runDir, args } = argsOf("tensorflow-lost", "--engine", "tensorflow", "--workers", "2");
    const started = startPaddock(args);
    await until("step 7", 100, () => readSteps(runDir).length >= 7);
    process.kill(workerOf(started.process.pid as number), "SIGKILL");
    const { code, stderr } = await started.done;
    expect(code, stderr).toBe(0);
    expect(trajectory(runDir)).toEqual(trajectory(one));
    const log = readFileSync(join(runDir, "logs", "worker-1.log"), "utf8");
    // One process, whose interrupted engine thread was replaced before the second generation.
    expect(log.match(/engine is open/g)).toHaveLength(1);
    expect(log.match(/generation begins/g)?.length).toBeGreaterThanOrEqual(2);
  });
});

/** The process of worker-0 that the command `root` started. */
function workerOf(root: number): number {
  const rows = execFileSync("ps", ["-eo", "pid=,ppid=,args="], { encoding: "utf8" }).split("\n");
  const own = rows
    .map((row) => row.trim().split(/\s+/))
    .find(([, parent, ...args]) => Number(parent) === root && args.includes("worker-0"));
  expect(own, "worker-0 is a child of the run").toBeDefined();
  return Number(own?.[0]);
}
