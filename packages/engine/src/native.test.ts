/** The addon itself: handles, errors, memory, several threads at once. */
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { addonPath, type Handle, loadNative, type Native, resultInts } from "./native.js";
import { skipReason } from "./testing/torch.js";

const load = loadNative();

/** What a worker runs: products checked against their known value until it is told to stop. */
const worker = `
const { parentPort, workerData } = require("node:worker_threads");
const native = require(workerData.addon);
native.setThreads(1);
const n = 48;
native.shared.set([n, n], ${resultInts});
const x = native.fromArray(new Float32Array(n * n).fill(workerData.value), 0, 2);
let wrong = 0;
for (let i = 0; i < workerData.rounds; i++) {
  const y = native.matmul(x, x, false, true);
  const first = new Float32Array(native.read(y, 0))[0];
  if (first !== n * workerData.value ** 2) wrong++;
  native.free(y);
  if (i === 0) parentPort.postMessage("running");
}
parentPort.postMessage({ wrong, tensors: native.numTensors(), foreign: attempt(workerData.foreign) });
function attempt(handle) {
  try { native.exp(handle); return "accepted"; } catch (error) { return error.message; }
}`;

describe.skipIf(skipReason)(`the addon ${skipReason ?? ""}`, () => {
  const native = (load.kind === "loaded" ? load.native : undefined) as Native;

  function tensor(values: number[], shape: number[]): Handle {
    native.shared.set(shape, resultInts);
    return native.fromArray(Float32Array.from(values), 0, shape.length);
  }

  test("a freed, foreign or invented handle is an error, and its slot's next tensor stays hidden", () => {
    const first = tensor([1], [1]);
    native.free(first);
    const second = tensor([2], [1]);
    for (const bad of [first, -1, 0, 123_456, 2 ** 31 - 1]) {
      expect(() => native.exp(bad)).toThrow(/exp: tensor handle -?\d+ is not alive/);
      expect(() => native.free(bad)).toThrow(/free: tensor handle/);
    }
    expect(Array.from(new Float32Array(native.read(second, 0)))).toEqual([2]);
    native.free(second);
  });

  test("missing and wrong arguments are errors", () => {
    const loose = native as unknown as Record<string, (...args: unknown[]) => unknown>;
    expect(() => loose["exp"]?.()).toThrow(/argument 0 must be a number/);
    expect(() => loose["sum"]?.(0, 0)).toThrow(/must be a boolean|not alive/);
    expect(() => loose["fromArray"]?.([1, 2], 0, 0)).toThrow(/argument 0 must be a typed array/);
    expect(() => native.fromArray(new Float32Array(3), 0, 0)).toThrow(/needs 4 bytes.* has 12/);
    expect(() => native.fromArray(new Float32Array(1), 0, 1_000_000)).toThrow(/list does not fit/);
    expect(() => native.fromArray(new Float32Array(1), 7, 0)).toThrow(/unknown dtype/);
    expect(() => native.setDevice("tpu")).toThrow(/setDevice: /);
  });

  test("an allocation that cannot be is an out-of-memory error with its size", () => {
    native.shared.set([2 ** 30, 2 ** 30], resultInts);
    let thrown: unknown;
    try {
      native.fill(2, 1, 0);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ code: "out-of-memory" });
    expect(String(thrown)).toMatch(/fill: .*4611686018427387904 bytes/);
  });

  test("bytes count storages once: views are free, and the last view frees", () => {
    const [tensors, bytes] = [native.numTensors(), native.numBytes()];
    const x = tensor(new Array<number>(1000).fill(1), [1000]);
    native.shared.set([10, 100], resultInts);
    const view = native.reshape(x, 2);
    expect(native.numTensors() - tensors).toBe(2);
    expect(native.numBytes() - bytes).toBe(4000);
    native.free(x);
    expect(native.numBytes() - bytes).toBe(4000);
    native.free(view);
    expect([native.numTensors(), native.numBytes()]).toEqual([tensors, bytes]);
  });

  test("the memory of a large tensor is kept for the next one of about its size", () => {
    const shape = (rows: number) => native.shared.set([rows, 1024], resultInts);
    const [first, other] = [1000, 950].map((rows) => {
      shape(rows);
      return native.fill(2, 1, 0);
    }) as [Handle, Handle];
    native.free(other);
    const kept = native.cachedBytes();
    expect(kept).toBeGreaterThanOrEqual(950 * 4096);
    shape(940);
    const next = native.fill(2, 1, 0);
    expect(native.cachedBytes()).toBeLessThanOrEqual(kept - 940 * 4096);
    shape(2000); // fits nothing that is kept: what is kept makes room, the peak does not grow
    native.free(first);
    native.free(native.fill(2, 1, 0));
    expect(native.cachedBytes()).toBeLessThanOrEqual(2000 * 4096 + 16_384);
    native.free(next);
  });

  // AddressSanitizer's notes of what is idle take pages of their own.
  const isSanitized = readFileSync("/proc/self/maps", "utf8").includes("libasan");
  test.skipIf(isSanitized)("kept memory serves smaller tensors, and joins again", () => {
    const fill = (mebibytes: number) => {
      native.shared.set([mebibytes, 1 << 18], resultInts);
      return native.fill(2, 1, 0);
    };
    const faultsOfARound = () => {
      const before = process.resourceUsage().minorPageFault;
      for (const parts of [[64, 128, 64], [200, 56], [256]]) {
        const blocks = parts.map(fill);
        for (const block of blocks) native.free(block);
      }
      return process.resourceUsage().minorPageFault - before;
    };
    native.free(fill(256));
    // Fresh memory takes a fault per page, and 64 MiB are 32 huge ones. V8 has faults of its own, not in every round.
    expect(Math.min(...Array.from({ length: 5 }, faultsOfARound))).toBeLessThan(32);
  });

  test("a borrowed array is read in place and stays alive with its tensor", () => {
    const bytes = native.numBytes();
    let values: Float32Array | undefined = new Float32Array(new SharedArrayBuffer(64), 4, 8).fill(
      1,
    );
    native.shared.set([8], resultInts);
    const x = native.borrow(values, 0, 1);
    expect(native.numBytes()).toBe(bytes);
    values[7] = 5;
    values = undefined;
    native.shared.set([7], resultInts);
    native.shared.set([1], resultInts + 1);
    const last = native.slice(x, 1, 1);
    native.free(x);
    expect(Array.from(new Float32Array(native.read(last, 0)))).toEqual([5]);
    native.free(last);
  });

  test("results fit the array they are read into, whatever their layout", () => {
    const x = tensor([1, 2, 3, 4, 5, 6], [2, 3]);
    native.shared.set([1, 0], resultInts);
    const transposed = native.permute(x, 2);
    const out = new Float32Array(6);
    native.readInto(transposed, 0, out);
    expect(Array.from(out)).toEqual([1, 4, 2, 5, 3, 6]);
    expect(() => native.readInto(x, 0, new Float32Array(5))).toThrow(/has 24 bytes, the array 20/);
    expect(() => native.read(x, 1)).toThrow(/not of the dtype/);
    native.free(x);
    native.free(transposed);
  });

  test("two threads compute at once, each with tensors of its own", async () => {
    const mine = tensor([1], [1]);
    const results = [2, 3].map((value) => {
      const workerData = { addon: addonPath, value, rounds: 300, foreign: mine };
      const thread = new Worker(worker, { eval: true, workerData });
      return new Promise((resolve, reject) => {
        thread.on("message", (message) => message !== "running" && resolve(message));
        thread.on("error", reject);
      });
    });
    for (const result of await Promise.all(results)) {
      expect(result).toMatchObject({ wrong: 0, tensors: 1 });
      expect(result).toMatchObject({
        foreign: expect.stringContaining("not alive on this thread"),
      });
    }
    native.free(mine);
  });

  test("a thread that is terminated in the middle takes nothing down", async () => {
    const workerData = { addon: addonPath, value: 2, rounds: 1e9, foreign: 0 };
    const thread = new Worker(worker, { eval: true, workerData });
    await new Promise((resolve) => thread.once("message", resolve));
    expect(await thread.terminate()).toBe(1);
    const x = tensor([4], [1]);
    const root = native.sqrt(x);
    expect(Array.from(new Float32Array(native.read(root, 0)))).toEqual([2]);
    native.free(x);
    native.free(root);
  });
});
