import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { paddockIn } from "./testing/run-cli.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock-cli-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const paddock = (...argv: string[]) => paddockIn(dir, argv);

test("help and the list of commands are no failure", async () => {
  const { code, out } = await paddock("--help");
  expect(code).toBe(0);
  expect(await paddock("--version")).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
  });
  for (const command of [
    "train",
    "coordinator",
    "worker",
    "status",
    "resume",
    "eval",
    "doctor",
    "plan",
    "export",
    "import",
    "certs",
    "token",
  ]) {
    expect(out).toContain(`  ${command} `);
  }
});

test("wrong use is exit code 2, and says what was expected", async () => {
  expect(await paddock("trian")).toMatchObject({ code: 2, err: expect.stringContaining("train") });
  expect(await paddock("train")).toMatchObject({ code: 2 });
  expect(await paddock("train", "x.yaml", "--workers", "two")).toMatchObject({
    code: 2,
    err: expect.stringContaining("expected an integer from 1"),
  });
  expect(await paddock("train", "x.yaml", "--port", "70000")).toMatchObject({ code: 2 });
  expect(await paddock("train", "x.yaml", "--nonsense")).toMatchObject({ code: 2 });
});

const shipped = (name: string): string =>
  fileURLToPath(new URL(`../../../test/fixtures/official-configs/${name}`, import.meta.url));

test("recipe prints what an official config comes to, and what it still needs", async () => {
  const file = shipped("dinov2/vitl16_short.yaml");
  const flags = ["--logical-ranks", "32", "train.batch_size_per_gpu=32"];
  const { code, out } = await paddock("recipe", file, ...flags);
  expect(code).toBe(0);
  expect(out).toMatch(
    /schedules\.learningRate\.peak +0\.004 += optim\.base_lr \* sqrt\(1024 \/ 1024\)/,
  );
  expect(out).toMatch(/batch_size_per_gpu +32 +override/);
  expect(out).toMatch(/before it can run\n +train\.dataset_path/);
  const json = await paddock("recipe", file, ...flags, "--json", "--data", "images");
  expect(JSON.parse(json.out)).toMatchObject({
    kind: "dinov2",
    blockers: [],
    spec: { data: { path: join(dir, "images") }, logicalRanks: 32, fleet: { workers: 2 } },
  });
});

test("recipe asks whose a file is when only shared keys are in it", async () => {
  const file = shipped("dinov3/multidist_tests/vits_p16.yaml");
  expect(await paddock("recipe", file)).toMatchObject({
    code: 2,
    err: expect.stringContaining("--official dinov2 or --official dinov3"),
  });
  const asked = await paddock("recipe", file, "--official", "dinov3");
  expect(asked).toMatchObject({ code: 0, out: expect.stringContaining("DINOv3 config") });
});

test("recipe takes run specs too", async () => {
  await writeFile(join(dir, "own.yaml"), "steps: 9\nbatchPerRank: 4\ndata: { path: images }\n");
  const { code, out } = await paddock("recipe", "own.yaml", "model.depth=3", "--workers", "1");
  expect(code).toBe(0);
  expect(out).toMatch(/ +steps +9 +file/);
  expect(out).toMatch(/ +depth +3 +override/);
  expect(out).toMatch(/ +workers +1 +override/);
  expect(out).toMatch(/ +width +192 +default/);
  expect(await paddock("recipe", "own.yaml", "--precision", "bf16")).toMatchObject({
    code: 2,
    err: expect.stringContaining("engine.precision"),
  });
});

test("an official config with gaps does not start, nor a run spec with an official config's flags", async () => {
  const config = shipped("dinov2/vitl16_short.yaml");
  expect(await paddock("train", "--config", config, "--run-dir", "run")).toMatchObject({
    code: 2,
    err: expect.stringContaining("root=/path"),
  });
  expect(await paddock("train", "--config", config, "optim.base_rl=1")).toMatchObject({
    code: 2,
    err: expect.stringContaining("did you mean optim.base_lr?"),
  });
  expect(await paddock("train", "x.yaml", "--logical-ranks", "8")).toMatchObject({
    code: 2,
    err: expect.stringContaining("--config"),
  });
});

test("a spec that is not there, and a run that is not there, are exit code 2", async () => {
  expect(await paddock("train", "x.yaml")).toMatchObject({
    code: 2,
    err: expect.stringContaining(join(dir, "x.yaml")),
  });
  for (const argv of [
    ["status"],
    ["status", "x"],
    ["report", "x"],
    ["resume", "x"],
    ["eval", "knn", "x"],
    ["export", "x", "--format", "timm"],
  ]) {
    expect(await paddock(...argv)).toMatchObject({
      code: 2,
      err: expect.stringContaining("expected a run"),
    });
  }
});

test("a dataset that is not there is exit code 3, before anything is started or written", async () => {
  const spec = "steps: 1\nbatchPerRank: 4\ndata: { kind: idx, path: nowhere }\n";
  await writeFile(join(dir, "run.yaml"), spec);
  const { code, err } = await paddock("train", "run.yaml", "--run-dir", "run");
  expect(code).toBe(3);
  expect(err).toContain(join(dir, "nowhere"));
  expect(await paddock("status", "run")).toMatchObject({ code: 2 });
});

test("certificates and tokens are made once, for our eyes only, and never over others", async () => {
  expect(await paddock("certs", "init", "--host", "gpu.lab")).toMatchObject({ code: 0 });
  expect(await paddock("certs", "init")).toMatchObject({
    code: 2,
    err: expect.stringContaining("certs issue"),
  });
  expect(await paddock("certs", "init", "--keep")).toMatchObject({ code: 0 });
  for (const name of ["ca", "coordinator", "worker", "client"]) {
    expect((await stat(join(dir, "tls", `${name}.key`))).mode & 0o777).toBe(0o600);
  }
  const before = await readFile(join(dir, "tls", "worker.crt"), "utf8");
  const issue = ["certs", "issue", "worker", "--name", "gpu-1", "--days", "3", "--out", "gpu-1"];
  expect(await paddock(...issue)).toMatchObject({ code: 0 });
  expect(await readFile(join(dir, "tls", "worker.crt"), "utf8")).toBe(before);
  expect((await readdir(join(dir, "gpu-1"))).sort()).toEqual([
    "ca.crt",
    "worker.crt",
    "worker.key",
  ]);
  const shown = JSON.parse((await paddock("certs", "show", "--dir", "gpu-1", "--json")).out);
  expect(shown).toMatchObject([
    { file: "ca.crt", role: "authority", problem: null },
    { file: "worker.crt", role: "worker", name: "gpu-1", problem: null },
  ]);
  const days = (Date.parse(shown[1].validTo) - Date.now()) / 86_400_000;
  expect(days).toBeGreaterThan(2.9);
  expect(days).toBeLessThanOrEqual(3);
  for (const argv of [
    ["certs", "issue", "root"],
    ["certs", "issue", "worker", "--days", "0"],
    ["certs", "issue", "worker", "--dir", "nowhere"],
    ["certs", "init", "--dir", "x", "--host", "a b"],
    ["certs", "show", "--dir", "nowhere"],
    ["token", "create", "--expires", "soon"],
  ]) {
    expect(await paddock(...argv)).toMatchObject({ code: 2 });
  }

  const token = await paddock("token", "create", "--expires", "2h");
  expect(token).toMatchObject({ code: 0, out: expect.stringMatching(/^pdk\.\w+\.[\w-]{43}\n$/) });
  expect(await paddock("token", "create", "--out", "t")).toMatchObject({ code: 0 });
  expect((await stat(join(dir, "t"))).mode & 0o777).toBe(0o600);
  expect(await paddock("token", "create", "--out", "t")).toMatchObject({ code: 2 });
});

test("the doctor names each failure with its remedy, as text and as JSON", async () => {
  const flags = ["--data", "nowhere", "--redis", "redis://127.0.0.1:1"];
  const { code, out } = await paddock("doctor", "--json", ...flags);
  expect(code).toBe(3);
  const { ok, findings } = JSON.parse(out) as {
    ok: boolean;
    findings: { name: string; ok: boolean; remedy: string }[];
  };
  expect(ok).toBe(false);
  const failed = findings.filter((finding) => !finding.ok);
  expect(failed.map(({ name }) => name)).toEqual(["redis", "dataset"]);
  expect(failed.every(({ remedy }) => remedy !== "")).toBe(true);
  expect((await paddock("doctor", ...flags)).out).toMatch(/FAILED {2}redis .*\n +remedy: start it/);
});
