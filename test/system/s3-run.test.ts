/** A run whose checkpoints lie in S3-compatible storage: killed, resumed, and the same state as with files. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
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
    const steps = 12;
    const checkpoint = { everySteps: 4, keep: 2 };
    const [onFiles, inS3] = [join(folder.path, "files"), join(folder.path, "s3-run")];
    const plain = writeTinyRun(folder.path, { steps, checkpoint });
    const spec = writeTinyRun(folder.path, {
      steps,
      checkpoint: { ...checkpoint, storage: "s3://checkpoints/team", replicas: true },
      fleet: { workers: 2, redundancy: "shadow" },
    });
    const slow = { PADDOCK_FAILPOINTS: "worker.batch.ready=delay@*:100" };
    const killed = startPaddock(["train", spec, "--run-dir", inS3], undefined, {
      ...s3.environment,
      ...slow,
    });
    await until("a checkpoint and steps after it", 60, () => readSteps(inS3).length >= 6);
    await killAll(killed);
    expect(readSteps(inS3).length).toBeLessThan(steps);

    const [resumed, files] = await Promise.all([
      paddock(["resume", inS3], undefined, s3.environment),
      paddock(["train", plain, "--run-dir", onFiles, "--workers", "1"]),
    ]);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(files.code, files.stderr).toBe(0);
    expect(trajectory(inS3)).toEqual(trajectory(onFiles));
    expect(existsSync(join(inS3, "checkpoints"))).toBe(false);
    for (const name of readdirSync(join(inS3, "logs"))) {
      const log = readFileSync(join(inS3, "logs", name), "utf8");
      for (const secret of ["testkeyid", "testsecretkey"]) expect(log).not.toContain(secret);
    }

    const [there, here, list] = await Promise.all([
      json<Listed>(0, "checkpoint", "verify", inS3),
      json<Listed>(0, "checkpoint", "verify", onFiles),
      json<Listed>(0, "checkpoint", "list", inS3),
    ]);
    expect(there).toMatchObject({ checkpoints: [{ step: 12 }, { step: 8 }] });
    const hashes = ({ checkpoints }: Listed) => checkpoints.map(({ stateHash }) => stateHash);
    expect(hashes(there)).toEqual(hashes(here));

    const directory = list.checkpoints[0]?.directory ?? "";
    expect(directory).toMatch(/^s3:\/\/checkpoints\/team\/tiny-\d+-\d+-[0-9a-f]+\/12$/);
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

    expect(await json(0, "checkpoint", "prune", inS3, "--keep", "1")).toMatchObject({
      deleted: [8],
    });
    expect(readdirSync(dirname(dirname(shard)))).toEqual(["12"]);
  });
});
