/** Checkpoints as a user meets them: a disk that is full, and `paddock checkpoint`. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RunSpecInput } from "@paddock/contract";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Fleet, Member } from "../support/fleet.js";
import { fleetsOfTests } from "../support/fleets-of-tests.js";
import {
  paddock,
  printed,
  readSteps,
  scratch,
  startPaddock,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";

const folder = scratch();
afterAll(folder.remove);

const steps = 30;
const changes: Partial<RunSpecInput> = { steps, checkpoint: { everySteps: 10, keep: 2 } };
const undisturbed = join(folder.path, "undisturbed");

beforeAll(async () => {
  const spec = writeTinyRun(folder.path, changes);
  const args = ["train", spec, "--run-dir", undisturbed, "--workers", "1"];
  const { code, stderr } = await paddock(args);
  expect(code, stderr).toBe(0);
});

const prepareFleet = fleetsOfTests(folder.path, afterEach);

async function fleetOf(name: string): Promise<{ fleet: Fleet; coordinator: Member }> {
  const fleet = await prepareFleet(name, { ...changes, fleet: { workers: 2, leaseSeconds: 10 } });
  return { fleet, coordinator: fleet.startCoordinator() };
}

/** Larger than a worker's log, smaller than its file of a checkpoint. */
const limitBytes = 64 * 1024;

/** From now on the worker's files may not grow beyond so many bytes: to it the disk is full. */
function limit({ process }: Member, bytes: number | "unlimited"): void {
  execFileSync("prlimit", ["--pid", String(process.pid), `--fsize=${bytes}:unlimited`]);
}

function savedSteps(fleet: Fleet): number[] {
  return fleet.ledger().flatMap((r) => (r.kind === "checkpoint" ? [r.step] : []));
}

interface Verified {
  readonly checkpoints: readonly {
    readonly step: number;
    readonly workers?: number;
    readonly stateHash?: string;
    readonly error?: string;
  }[];
}

async function verified(runDir: string, ...flags: string[]): Promise<Verified & { code: unknown }> {
  const { code, stdout } = await paddock(["checkpoint", "verify", runDir, "--json", ...flags]);
  return { code, ...(JSON.parse(stdout) as Verified) };
}

test("a full disk costs the checkpoint and not the run; what is saved later is the undisturbed state", async () => {
  const { fleet, coordinator } = await fleetOf("full");
  const worker = fleet.startWorker("a");
  limit(worker, limitBytes);
  fleet.startWorker("b");
  await until("a failed checkpoint", 120, () => worker.log().includes("checkpoint failed here"));
  limit(worker, "unlimited");
  expect(await coordinator.ended).toBe(0);
  expect(savedSteps(fleet)).toEqual([20, 30]);
  expect(existsSync(join(fleet.runDir, "checkpoints", "10"))).toBe(false);
  expect(trajectory(fleet.runDir)).toEqual(trajectory(undisturbed));
  const [here, there] = await Promise.all([verified(fleet.runDir), verified(undisturbed)]);
  expect(here).toMatchObject({ code: 0, checkpoints: [{ step: 30, workers: 2 }, { step: 20 }] });
  expect(there).toMatchObject({ code: 0, checkpoints: [{ step: 30, workers: 1 }, { step: 20 }] });
  const hashes = ({ checkpoints }: Verified) => checkpoints.map(({ stateHash }) => stateHash);
  expect(hashes(here)).toEqual(hashes(there));
  expect(hashes(here)[0]).toMatch(/^[0-9a-f]{64}$/);
  expect(hashes(here)[0]).not.toBe(hashes(here)[1]);
});

test("a disk that stays full ends the run with exit code 3 and the reason, and the run resumes exactly", async () => {
  const { fleet, coordinator } = await fleetOf("stays-full");
  for (const name of ["a", "b"]) limit(fleet.startWorker(name), limitBytes);
  expect(await coordinator.ended).toBe(3);
  expect(savedSteps(fleet)).toEqual([]);
  expect(coordinator.log()).toMatch(/could not be written.*shard-[01]-of-2\.safetensors.*EFBIG/);
  const { code, stderr } = await paddock(["resume", fleet.runDir, "--workers", "1"]);
  expect(code, stderr).toBe(0);
  expect(trajectory(fleet.runDir)).toEqual(trajectory(undisturbed));
});

test("replicas are written from shadows: a run resumes from them, and repair mends what they are of", async () => {
  const spec = writeTinyRun(folder.path, {
    ...changes,
    checkpoint: { everySteps: 10, replicas: true },
    fleet: { workers: 2, redundancy: "shadow" },
  });
  const runDir = join(folder.path, "replicas");
  const drained = startPaddock(["train", spec, "--run-dir", runDir]);
  await until("step 3", 60, () => readSteps(runDir).length >= 3);
  drained.process.kill("SIGINT");
  expect((await drained.done).code).toBe(130);
  const step = readSteps(runDir).length;
  const path = join(runDir, "checkpoints", String(step), "shard-0-of-2.safetensors");
  const good = readFileSync(path);
  const last = good.length - 1;
  writeFileSync(path, good.with(last, (good[last] as number) ^ 1));
  expect((await verified(runDir)).code).toBe(4);
  const resumed = await paddock(["resume", runDir, "--workers", "1"]);
  expect(resumed.code, resumed.stderr).toBe(0);
  expect(trajectory(runDir)).toEqual(trajectory(undisturbed));
  const logs = readdirSync(join(runDir, "logs")).map((name) =>
    readFileSync(join(runDir, "logs", name), "utf8"),
  );
  expect(logs.join("\n")).toContain("read from its replica");
  const newest = join(runDir, "checkpoints", "30", "shard-0-of-1.safetensors");
  rmSync(newest);
  // One worker has no shadow, hence no replica.
  expect((await paddock(["checkpoint", "repair", runDir])).code).toBe(4);
});

test("list, verify and prune tell what there is, what is damaged, and what goes", async () => {
  const list = await printed(["checkpoint", "list", undisturbed, "--json"]);
  expect(JSON.parse(list)).toMatchObject({
    checkpoints: [
      { step: 30, complete: true, inLedger: true },
      { step: 20, complete: true, inLedger: true },
    ],
  });
  for (const name of ["shard-0-of-1.safetensors", "manifest.json"]) {
    const path = join(undisturbed, "checkpoints", "20", name);
    const good = readFileSync(path);
    const bad = Buffer.from(good);
    bad[100] = (bad[100] as number) ^ 4;
    writeFileSync(path, bad);
    const found = await verified(undisturbed);
    expect(found.code).toBe(4);
    expect(found.checkpoints[0]).not.toHaveProperty("error");
    expect(found.checkpoints[1]?.error).toMatch(new RegExp(`${name}: expected sha-?256`, "i"));
    expect((await verified(undisturbed, "--step", "30")).code).toBe(0);
    writeFileSync(path, good);
  }
  expect((await paddock(["checkpoint", "verify", undisturbed, "--step", "41"])).code).toBe(2);
  const prune = ["checkpoint", "prune", undisturbed, "--json", "--keep", "1"];
  const planned = await printed([...prune, "--dry-run"]);
  expect(JSON.parse(planned)).toMatchObject({ kept: [30], deleted: [20], dryRun: true });
  expect(existsSync(join(undisturbed, "checkpoints", "20"))).toBe(true);
  expect(await printed([...prune, "--keep-every", "10"])).toContain('"deleted":[]');
  const done = await printed(prune);
  expect(JSON.parse(done)).toMatchObject({ kept: [30], deleted: [20], dryRun: false });
  expect(existsSync(join(undisturbed, "checkpoints", "20"))).toBe(false);
  for (const name of ["list", "verify", "prune"]) {
    const help = await paddock(["checkpoint", name, "--help"]);
    expect(help).toMatchObject({ code: 0, stdout: expect.stringContaining("Examples:") });
  }
});
