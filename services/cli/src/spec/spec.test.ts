import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { loadSpec } from "./load-spec.js";
import { applyOverrides, parseOverride } from "./overrides.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "paddock-spec-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

async function specFile(text: string, name = "run.yaml"): Promise<string> {
  const file = join(dir, name);
  await writeFile(file, text);
  return file;
}

async function failure(work: Promise<unknown>): Promise<PaddockError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(PaddockError);
  return error as PaddockError;
}

const small = "steps: 10\nbatchPerRank: 4\ndata: { kind: idx, path: images }\n";

test("a spec without measure is refused, and so is one that unfolds", async () => {
  const long = await specFile(`${small}# ${"x".repeat(2 ** 20)}\n`);
  expect(await failure(loadSpec(long, []))).toMatchObject({
    code: "invalid-spec",
    message: expect.stringContaining("at most 1048576 characters"),
  });
  const levels = Array.from(
    { length: 9 },
    (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i},`.repeat(9)}]`,
  );
  const bomb = await specFile(`a0: &a0 [x]\n${levels.join("\n")}\n${small}`);
  expect(await failure(loadSpec(bomb, []))).toMatchObject({
    code: "invalid-spec",
    message: expect.stringContaining("alias"),
  });
});

test("overrides are read as YAML, make what is missing, index arrays, and leave the original alone", () => {
  const spec = { a: { b: 1 }, list: [1, 2] };
  const overrides = ["a.b=2", "a.c.d=[x, 1.5]", "list.1=null", "e=yes please", "a.b=3"];
  expect(applyOverrides(spec, overrides.map(parseOverride))).toEqual({
    a: { b: 3, c: { d: ["x", 1.5] } },
    list: [1, null],
    e: "yes please",
  });
  expect(spec).toEqual({ a: { b: 1 }, list: [1, 2] });
});

test("what is no override is refused with an example", () => {
  for (const text of ["abc", "=1", "a..b=1", "a.=1", "a=[1,"]) {
    expect(() => parseOverride(text)).toThrow(/expected (an override|a YAML value)/);
  }
});

test("a spec is read with defaults, and its dataset path is relative to the file", async () => {
  const spec = await loadSpec(await specFile(small), [parseOverride("seed=7")]);
  expect(spec).toMatchObject({
    steps: 10,
    seed: 7,
    logicalRanks: 4,
    data: { path: join(dir, "images") },
  });
});

test("JSON specs are read too", async () => {
  const text = JSON.stringify({ steps: 3, batchPerRank: 4, data: { path: "/images" } });
  const spec = await loadSpec(await specFile(text, "run.json"), []);
  expect(spec).toMatchObject({ steps: 3, data: { path: "/images" } });
});

test("every problem is reported with its line, or as coming from the command line", async () => {
  const file = await specFile(`${small}model:\n  widht: 3\n`);
  const error = await failure(loadSpec(file, [parseOverride("exchange.dtype=fp8")]));
  expect(error.exitCode).toBe(2);
  expect(error.message).toContain(file);
  expect(error.message).toMatch(
    /model\.widht: unknown key "widht"; did you mean "width"\? \(line 5\)/,
  );
  expect(error.message).toMatch(/exchange\.dtype: .*\(command line\)/);
});

test("broken YAML is reported with file, line and column; a missing file with where examples are", async () => {
  const file = await specFile("steps: 10\ndata: [1,\nmodel: 2");
  expect((await failure(loadSpec(file, []))).message).toContain(`${file}:3:1: expected YAML`);
  const twice = await specFile("steps: 1\nsteps: 2\n", "twice.yaml");
  expect((await failure(loadSpec(twice, []))).message).toContain(`${twice}:2:1`);
  const missing = await failure(loadSpec(join(dir, "no.yaml"), []));
  expect(missing.message).toContain("deploy/runs");
});
