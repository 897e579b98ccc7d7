/** Bad input: one clear message (expected / received / remedy), the right exit code, no damage. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Finished,
  paddock,
  readSteps,
  scratch,
  startPaddock,
  trajectory,
  until,
  writeTinyRun,
} from "../support/paddock.js";
import { freePort, startTestRedis } from "../support/redis.js";

const folder = scratch();
afterAll(folder.remove);

function expectFailure(
  finished: Finished,
  code: number,
  ...parts: readonly (string | RegExp)[]
): void {
  expect(finished.code, finished.stderr).toBe(code);
  for (const part of parts) expect(finished.stderr).toMatch(part);
  // A message for people: no stack trace.
  expect(finished.stderr).not.toMatch(/\n\s+at .*\.js:\d+/);
}

/** Waits for its Redis for about a minute before it gives up: begun first, so that the other tests run meanwhile. */
async function trainWithoutRedis() {
  const redis = await startTestRedis(folder.path);
  const runDir = join(folder.path, "redis-dies");
  const changes = { steps: 60, exchange: { dtype: "fp32" as const, timeoutSeconds: 2 } };
  const spec = writeTinyRun(folder.path, changes);
  const args = ["train", spec, "--run-dir", runDir, "--workers", "2", "--redis", redis.url];
  const { done } = startPaddock(args);
  await until("step 8", 90, () => readSteps(runDir).length >= 8);
  await redis.stop();
  return { runDir, spec, done };
}

let withoutRedis: Awaited<ReturnType<typeof trainWithoutRedis>>;
beforeAll(async () => {
  withoutRedis = await trainWithoutRedis();
});

test("an unknown spec key exits 2 and names the nearest key", async () => {
  const spec = join(folder.path, "typo.yaml");
  writeFileSync(spec, "steps: 3\nbatchPerRank: 2\ndata: {path: /nowhere}\nmodel: {pathSize: 7}\n");
  expectFailure(await paddock(["train", spec]), 2, /model\.pathSize/, /did you mean "patchSize"/);
});

test("an unknown override exits 2 and names the nearest key", async () => {
  const spec = writeTinyRun(folder.path);
  expectFailure(
    await paddock(["train", spec, "model.widht=64"]),
    2,
    /widht/,
    /did you mean "width"/,
  );
});

test("a wrong dataset path exits 3 and says which path", async () => {
  const spec = writeTinyRun(folder.path, { data: { kind: "idx", path: "/no/such/folder" } });
  const runDir = join(folder.path, "no-data");
  const finished = await paddock(["train", spec, "--run-dir", runDir, "--workers", "1"]);
  expectFailure(finished, 3, /\/no\/such\/folder/, /expected/);
});

test("a used metrics port exits 3 and says which port", async () => {
  const port = await freePort();
  const server = createServer().listen(port, "127.0.0.1");
  try {
    const spec = writeTinyRun(folder.path);
    const runDir = join(folder.path, "used-port");
    const finished = await paddock([
      "train",
      spec,
      "--run-dir",
      runDir,
      "--metrics-port",
      String(port),
    ]);
    expectFailure(finished, 3, new RegExp(String(port)));
  } finally {
    server.close();
  }
});

test("a Redis that nobody serves exits 3 with the URL and a remedy", async () => {
  const spec = writeTinyRun(folder.path);
  const url = `redis://127.0.0.1:${await freePort()}`;
  const runDir = join(folder.path, "no-redis");
  const finished = await paddock(["train", spec, "--run-dir", runDir, "--redis", url]);
  expectFailure(finished, 3, new RegExp(url.replace("redis://", "")));
});

test("one flipped byte of a checkpoint is found before anything is loaded, and nothing is damaged", async () => {
  const runDir = join(folder.path, "flipped");
  const spec = writeTinyRun(folder.path, { steps: 10 });
  const drained = startPaddock([
    "train",
    spec,
    "--run-dir",
    runDir,
    "--workers",
    "2",
    "--steps",
    "10000",
  ]);
  await until("step 6", 90, () => readSteps(runDir).length >= 6);
  drained.process.kill("SIGINT");
  expect((await drained.done).code).toBe(130);
  const newest = Math.max(...readdirSync(join(runDir, "checkpoints")).map(Number));
  const directory = join(runDir, "checkpoints", String(newest));
  const file = readdirSync(directory).find((name) => name.endsWith(".safetensors")) as string;
  const path = join(directory, file);
  const good = readFileSync(path);
  const bad = Buffer.from(good);
  const at = Math.floor(bad.length * 0.7);
  bad[at] = (bad[at] as number) ^ 1;
  writeFileSync(path, bad);
  const before = readFileSync(join(runDir, "ledger.jsonl"), "utf8");

  const finished = await paddock(["resume", runDir]);
  expectFailure(finished, 4, new RegExp(file), /expected ghash/, /received/);
  expect(readFileSync(join(runDir, "ledger.jsonl"), "utf8").startsWith(before)).toBe(true);

  writeFileSync(path, good);
  const again = startPaddock(["resume", runDir]);
  await until("more steps", 90, () => readSteps(runDir).length > newest);
  again.process.kill("SIGINT");
  expect((await again.done).code).toBe(130);
});

test("a corrupt, a truncated and an absurdly large image are replaced, named once, counted, and do not stop the run", async () => {
  const images = join(folder.path, "photos");
  for (const name of ["cat", "dog"]) mkdirSync(join(images, name), { recursive: true });
  for (let i = 0; i < 12; i++) {
    const path = join(images, i % 2 ? "cat" : "dog", `${i}.png`);
    await sharp({
      create: { width: 40, height: 40, channels: 3, background: { r: 20 * i, g: 99, b: 7 } },
    })
      .png()
      .toFile(path);
  }
  const whole = readFileSync(join(images, "cat", "1.png"));
  writeFileSync(join(images, "cat", "corrupt.png"), Buffer.from("this is not a picture"));
  writeFileSync(join(images, "cat", "truncated.png"), whole.subarray(0, 60));
  const absurd = Buffer.from(whole);
  absurd.writeUInt32BE(1_000_000, 16);
  absurd.writeUInt32BE(1_000_000, 20);
  writeFileSync(join(images, "dog", "absurd.png"), absurd);
  const runDir = join(folder.path, "bad-images");
  const spec = writeTinyRun(folder.path, {
    steps: 12,
    data: { kind: "folder", path: images },
    model: { width: 32, depth: 1, heads: 2, patchSize: 7, channels: 3, layerScale: 0.1 },
    crops: {
      global: { size: 28, scale: [0.4, 1] },
      local: { size: 14, scale: [0.1, 0.4] },
      localCount: 2,
    },
  });
  const { code, stderr, stdout } = await paddock([
    "train",
    spec,
    "--run-dir",
    runDir,
    "--workers",
    "1",
  ]);
  expect(code, stderr).toBe(0);
  const logs = readdirSync(join(runDir, "logs")).map((name) =>
    readFileSync(join(runDir, "logs", name), "utf8"),
  );
  const all = logs.join("\n") + stdout + stderr;
  for (const name of ["corrupt.png", "truncated.png", "absurd.png"]) {
    expect(all.split(name).length - 1, name).toBeGreaterThanOrEqual(1);
  }
  expect(readSteps(runDir)).toHaveLength(12);
  expect(existsSync(join(runDir, "checkpoints", "12", "manifest.json"))).toBe(true);
});

test("starting again in a run directory that holds a run is refused with a remedy", async () => {
  const runDir = join(folder.path, "bad-images");
  const spec = writeTinyRun(folder.path);
  expectFailure(await paddock(["train", spec, "--run-dir", runDir]), 2, /--resume/);
});

test("a Redis that dies for good ends the run with one clear message, and the run resumes exactly", async () => {
  const { runDir, spec, done } = withoutRedis;
  const finished = await done;
  expect([3, 4]).toContain(finished.code);
  expect(finished.stderr).toMatch(/[Rr]edis/);

  const resumed = await paddock(["train", spec, "--run-dir", runDir, "--resume", "--workers", "2"]);
  expect(resumed.code, resumed.stderr).toBe(0);
  const whole = join(folder.path, "redis-lives");
  const undisturbed = await paddock(["train", spec, "--run-dir", whole, "--workers", "1"]);
  expect(undisturbed.code, undisturbed.stderr).toBe(0);
  expect(trajectory(runDir)).toEqual(trajectory(whole));
});
