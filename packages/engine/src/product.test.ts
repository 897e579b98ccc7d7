/** Matrix products by each library that this CPU could use, in a process of its own: the choice is made once. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { addonPath, resultInts } from "./native.js";
import { skipReason } from "./testing/torch.js";

const script = fileURLToPath(new URL("./testing/products.mjs", import.meta.url));

function multiplyWith(library: string) {
  const command = [process.execPath, script, addonPath, String(resultInts)];
  return spawnSync("env", [`PADDOCK_PRODUCTS=${library}`, ...command], { encoding: "utf8" });
}

describe.skipIf(skipReason)(`products ${skipReason ?? ""}`, () => {
  test.each([
    ["onednn", "oneDNN"],
    ["mkl", "MKL"],
  ])("%s: rounded as float32 is, in the same bits wherever operands lie", (name, library) => {
    const { stdout, stderr } = multiplyWith(name);
    if (stderr.includes("no oneDNN")) return;
    const answer = JSON.parse(stdout || "{}");
    expect(answer, stderr).toMatchObject({ moved: 0 });
    expect([library, "ATen"]).toContain(answer.library);
    expect(answer.worst).toBeLessThan(1);
    expect(answer.worst).toBeGreaterThan(0);
  });

  test("a library that is none is an error that names those there are", () => {
    const { status, stderr } = multiplyWith("blas");
    expect(status).not.toBe(0);
    expect(stderr).toContain("PADDOCK_PRODUCTS: expected onednn or mkl, received blas");
  });
});
