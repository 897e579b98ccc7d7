/** Packages that look like tfjs-node and say what a test needs them to say. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, expect, test } from "vitest";
import { askTensorflow, chooseTensorflow } from "./installed.js";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "paddock-tfjs-node-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

function packageThat(name: string, source: string) {
  const at = path.join(folder, name);
  fs.mkdirSync(at);
  fs.writeFileSync(path.join(at, "index.js"), source);
  return { path: at, name };
}

const seeing = (hasGpu: boolean) => `
  console.log("a line of its own");
  const { isNullOrUndefined } = require("node:util");
  if (!isNullOrUndefined(null) || isNullOrUndefined(0)) throw new Error("Node 23's gap is open");
  exports.backend = () => ({ isUsingGpuDevice: ${hasGpu}, binding: { TF_Version: "9.8.7" } });`;

const cpu = packageThat("cpu", seeing(false));
const gpu = packageThat("gpu", seeing(true));
const broken = packageThat("broken", `throw new Error("libcudart.so.11.0 is missing\\nand more")`);
const crashing = packageThat("crashing", "process.abort()");

test("a package is asked for its TensorFlow and whether that sees a GPU", () => {
  expect(askTensorflow(cpu)).toEqual({ kind: "works", version: "9.8.7", hasGpu: false });
  expect(askTensorflow(gpu)).toEqual({ kind: "works", version: "9.8.7", hasGpu: true });
});

test("one that does not load, or crashes, says so in a line", () => {
  expect(askTensorflow(broken)).toEqual({ kind: "fails", why: "libcudart.so.11.0 is missing" });
  expect(askTensorflow(crashing)).toEqual({
    kind: "fails",
    why: "its process ended with SIGABRT",
  });
});

test("the first that sees a GPU is taken, else the first that works, else the first", () => {
  expect(chooseTensorflow([])).toBeUndefined();
  expect(chooseTensorflow([broken])).toBe(broken);
  expect(chooseTensorflow([cpu, broken, gpu])).toBe(gpu);
  expect(chooseTensorflow([crashing, cpu])).toBe(cpu);
  expect(chooseTensorflow([broken, crashing])).toBe(broken);
});
