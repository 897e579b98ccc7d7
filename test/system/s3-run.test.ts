/** A run whose checkpoints lie in S3-compatible storage: killed, resumed, and the same state as with files. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RunSpecInput } from "@paddock/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { killAll } from "../support/kill.js";
import {
  paddock,
  readSteps,
  scratch,
  startPaddock,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";
import { startTestS3, type TestS3, whyNoS3 } from "../support/s3.js";

const folder = scratch();
afterAll(folder.remove);

interface Listed {
  readonly checkpoints: readonly {
    readonly step: number;
    readonly directory: string;
    readonly stateHash?: string;
    readonly error?: string;
  }[];
}

describe.skipIf(whyNoS3)(`a run with checkpoints in S3 ${whyNoS3 ?? ""}`, () => {
  let s3: TestS3;
  beforeAll(async () => {
    s3 = await startTestS3(folder.path);
  });
  afterAll(() => s3.stop());

  async function json<T>(code: number, ...args: string[]): Promise<T> {
    const done = await paddock([...args, "--json"], undefined, s3.environment);
    expect(done.code, done.stderr + done.stdout).toBe(code);
    return JSON.parse(done.stdout) as T;
  }

  test("it is killed, resumes, and ends as on files; list, verify, repair and prune know its checkpoints", async () => {
    const changes = (storage: string | null): Partial<RunSpecInput> => ({
      steps: 20,
      checkpoint: { everySteps: 5, keep: 2, storage, replicas: true },
      fleet: { workers: 2, redundancy: "shadow" },
    });
    const onFiles = join(folder.path, "files");
    const inS3 = join(folder.path, "s3-run");
    const files = paddock([
      "train",
      writeTinyRun(folder.path, changes(null)),
      "--run-dir",
      onFiles,
    ]);
    const spec = writeTinyRun(folder.path, changes("s3://checkpoints/team"));
    const slow = { PADDOCK_FAILPOINTS: "worker.batch.ready=delay@*:50" };
    const killed = startPaddock(["train", spec, "--run-dir", inS3], undefined, {
      ...s3.environment,
      ...slow,
    });
    await until("a checkpoint and steps after it", 60, () => readSteps(inS3).length >= 8);
    await killAll(killed);
    expect(readSteps(inS3).length).toBeLessThan(20);

    const resumed = await paddock(["resume", inS3], undefined, s3.environment);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect((await files).code).toBe(0);
    expect(trajectory(inS3)).toEqual(trajectory(onFiles));
    expect(existsSync(join(inS3, "checkpoints"))).toBe(false);
    for (const name of readdirSync(join(inS3, "logs"))) {
      const log = readFileSync(join(inS3, "logs", name), "utf8");
      for (const secret of ["testkeyid", "testsecretkey"]) expect(log).not.toContain(secret);
    }

    const [there, here] = await Promise.all([
      json<Listed>(0, "checkpoint", "verify", inS3),
      json<Listed>(0, "checkpoint", "verify", onFiles),
    ]);
    expect(there).toMatchObject({ checkpoints: [{ step: 20 }, { step: 15 }] });
    const hashes = ({ checkpoints }: Listed) => checkpoints.map(({ stateHash }) => stateHash);
    expect(hashes(there)).toEqual(hashes(here));

    const list = await json<Listed>(0, "checkpoint", "list", inS3);
    const directory = list.checkpoints[0]?.directory ?? "";
    expect(directory).toMatch(/^s3:\/\/checkpoints\/team\/tiny-\d+-\d+-[0-9a-f]+\/20$/);
    expect(list).toMatchObject({ checkpoints: [{ complete: true }, { complete: true }] });

    const shard = join(
      s3.folder,
      directory.slice("s3://checkpoints/".length),
      "shard-0-of-2.safetensors",
    );
    const good = readFileSync(shard);
    const last = good.length - 1;
    writeFileSync(shard, good.with(last, (good[last] as number) ^ 1));
    const damaged = await json<Listed>(4, "checkpoint", "verify", inS3);
    expect(damaged.checkpoints[0]?.error).toMatch(/s3:.*shard-0-of-2.safetensors: expected sha256/);
    await json(0, "checkpoint", "repair", inS3);
    expect(readFileSync(shard).equals(good)).toBe(true);
    rmSync(shard);
    await json(0, "checkpoint", "repair", inS3);
    expect(readFileSync(shard).equals(good)).toBe(true);

    expect(await json(0, "checkpoint", "prune", inS3, "--keep", "1")).toMatchObject({
      deleted: [15],
    });
    expect(await json(0, "checkpoint", "list", inS3)).toMatchObject({
      checkpoints: [{ step: 20 }],
    });
  });
});
