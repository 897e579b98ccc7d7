/** 200 training steps leave nothing behind (`npm run soak` is the long version). */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describeEngines } from "@paddock/engine";
import { describe, expect, test } from "vitest";

const torch = describeEngines().find(({ name }) => name === "torch");

function soak(...options: string[]) {
  const script = fileURLToPath(new URL("../run.mjs", import.meta.url));
  const args = [script, "soak/main.js", "--short", "--json", ...options];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  expect(stdout, stderr).toMatch(/^\{/);
  return { status, verdict: JSON.parse(stdout) };
}

describe.skipIf(!torch?.available)(`200 steps on torch ${torch?.note ?? ""}`, () => {
  test("the number of tensors and their bytes stay the same to the last one, resident memory within 8 MiB", () => {
    const { status, verdict } = soak();
    expect(status, JSON.stringify(verdict)).toBe(0);
    expect(verdict.tensors).toHaveLength(1);
  });

  test("one tensor kept per step is noticed, by number and by resident memory", () => {
    const { status, verdict } = soak("--leak");
    expect(status).toBe(1);
    expect(verdict.tensors.length).toBeGreaterThan(1);
    expect(verdict.endMiB - verdict.startMiB).toBeGreaterThan(8);
  });
});
