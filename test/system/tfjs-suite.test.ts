/** TF.js's own op tests on `torch`: what fails is what we say fails. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describeEngines } from "@paddock/engine";
import { describe, expect, test } from "vitest";
import { compareWithExpected } from "../tfjs/expected.js";

const torch = describeEngines().find(({ name }) => name === "torch");

describe.skipIf(!torch?.available)(`TF.js's op tests on torch ${torch?.note ?? ""}`, () => {
  test("all pass but those that are listed with their reason", () => {
    const script = fileURLToPath(new URL("../run.mjs", import.meta.url));
    const args = [script, "tfjs/main.js", "--json"];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    expect(status, stdout + stderr).toBe(0);
    const { passed, failed } = JSON.parse(stdout);
    expect(passed).toBeGreaterThan(4000); // the whole suite ran
    expect(failed).toBeLessThan(150);
  });
});

test("a failure that is not listed, and a listed test that passes, are told apart from expected ones", () => {
  const outcome = (name: string, status: "passed" | "failed") => ({ name, status, messages: [] });
  const outcomes = [
    outcome("twice", "failed"),
    outcome("twice", "failed"),
    outcome("fine", "passed"),
    outcome("repaired", "passed"),
    outcome("known", "failed"),
  ];
  const groups = [{ reason: "r", tests: ["twice", "repaired", "known", "not run"] }];
  expect(compareWithExpected(outcomes, groups)).toEqual({
    expected: [{ reason: "r", count: 2 }],
    unexpected: [outcome("twice", "failed")],
    passedAfterAll: ["repaired"],
  });
});
