/** Wrong arguments, of every kind, to every function of the addon: a clear error each time, never a crash. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { addonPath, loadNative, type Native, resultInts } from "./native.js";
import { skipReason } from "./testing/torch.js";

const load = loadNative();

/** So much address space makes absurd requests fail at once; a sanitizer needs all there is. */
const limit = '[ -n "$LD_PRELOAD" ] || ulimit -v 5000000; exec "$0" "$@"';

describe.skipIf(skipReason)(`wrong use of the addon ${skipReason ?? ""}`, () => {
  const native = (load.kind === "loaded" ? load.native : undefined) as Native;

  test.each([1, 2])("every function survives wrong arguments, seed %i", (seed) => {
    const folder = mkdtempSync(join(tmpdir(), "paddock-fuzz-"));
    const journal = join(folder, "journal");
    const script = fileURLToPath(new URL("./testing/fuzz.mjs", import.meta.url));
    try {
      const { status, signal, stdout, stderr } = spawnSync(
        "sh",
        ["-c", limit, process.execPath, script, addonPath, String(seed), "30", journal],
        { encoding: "utf8" },
      );
      const last = readFileSync(journal, "utf8").trim();
      expect({ status, signal }, `${stderr.slice(-2000)}\nlast call: ${last}`).toEqual({
        status: 0,
        signal: null,
      });
      const { calls, errors, bad } = JSON.parse(stdout);
      expect(bad).toEqual([]);
      expect(calls).toBeGreaterThan(4000);
      // Neither all wrong nor all right: both ways were taken.
      expect(errors / calls).toBeGreaterThan(0.2);
      expect(errors / calls).toBeLessThan(0.8);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("an absurd request is out-of-memory, with op, shapes and bytes", () => {
    const list = (...values: number[]) => native.shared.set(values, resultInts);
    list(100_000);
    const vector = native.fill(1, 1, 0);
    list(100_000, 100_000);
    const wide = native.broadcastTo(vector, 2); // a view: 400 KB
    list(100_000, 1);
    const column = native.reshape(vector, 2);
    list(1, 100_000);
    const row = native.reshape(vector, 2);
    const attempts: [call: () => unknown, message: RegExp][] = [
      [() => native.exp(wide), /^exp: .*40000000000 bytes.*\(given float32 \[100000,100000\]\)$/],
      [() => native.read(wide, 0), /^read: .*40000000000 bytes/],
      [() => native.add(column, row), /^add: .*given float32 \[100000,1\], float32 \[1,100000\]/],
      [() => native.matmul(column, row, false, false), /^matmul: .*40000000000 bytes/],
      [
        () => {
          list(2 ** 20, 2 ** 20);
          native.fill(2, 0, 0);
        },
        /^fill: .* 4398046511104 bytes.*\(given \[1048576,1048576\]\)/,
      ],
    ];
    for (const [call, message] of attempts) {
      expect(call).toThrow(message);
      expect(call).toThrow(expect.objectContaining({ code: "out-of-memory" }));
    }
    for (const handle of [vector, wide, column, row]) native.free(handle);
  });

  test("an array whose memory is given away does not take its tensor along", () => {
    const values = new Float32Array(1 << 22).fill(3);
    native.shared.set([values.length], resultInts);
    const x = native.borrow(values, 0, 1);
    structuredClone(values.buffer, { transfer: [values.buffer] });
    expect(values.length).toBe(0);
    expect(new Float32Array(native.read(x, 0)).every((value) => value === 3)).toBe(true);
    native.free(x);
  });

  test("row lists that are views are checked as they are read", () => {
    native.shared.set([6], resultInts);
    // As plain memory it begins 0 0 0; every second element is what the op reads.
    const list = native.fromArray(Int32Array.of(0, 0, 9, 0, 9, 0), 1, 1);
    native.shared.set([0, 6, 2], resultInts);
    const everySecond = native.stridedSlice(list, 1, 1, 1);
    native.shared.set([3, 4], resultInts);
    const x = native.fill(2, 1, 0);
    expect(() => native.scatterAddRows(x, x, everySecond)).toThrow(/row 9 of 3/);
    for (const handle of [list, everySecond, x]) native.free(handle);
  });

  test("values of one dtype are not read as another", () => {
    native.shared.set([2, 4], resultInts);
    const flags = native.fromArray(new Uint8Array(8).fill(1), 2, 2);
    native.shared.set([1, 0], resultInts);
    const transposed = native.permute(flags, 2);
    // 8 bytes, but eight numbers of 4 bytes would be written.
    expect(() => native.readInto(transposed, 0, new Float32Array(2))).toThrow(/not of the dtype/);
    for (const handle of [flags, transposed]) native.free(handle);
  });
});
