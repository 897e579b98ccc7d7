/** The failures we know of, by reason, held against those that happened. */
import { readFileSync } from "node:fs";
import type { SpecOutcome } from "./suite.js";

export interface ExpectedFailures {
  readonly reason: string;
  /** Names, as often as tests of that name fail: TF.js repeats some. */
  readonly tests: readonly string[];
}

export interface Comparison {
  readonly expected: readonly { readonly reason: string; readonly count: number }[];
  readonly unexpected: readonly SpecOutcome[];
  /** Listed tests that ran and did not fail. */
  readonly passedAfterAll: readonly string[];
}

/** The committed list. */
export function readExpected(): readonly ExpectedFailures[] {
  const file = new URL("../../tfjs/expected-failures.json", import.meta.url);
  const groups: ExpectedFailures[] = JSON.parse(readFileSync(file, "utf8"));
  return groups;
}

/** Sorts failures into listed and unlisted ones. Listed tests that did not run (a filter) count as neither. */
export function compareWithExpected(
  outcomes: readonly SpecOutcome[],
  groups: readonly ExpectedFailures[],
): Comparison {
  const ran = new Set(outcomes.map(({ name }) => name));
  const failed = new Map<string, SpecOutcome[]>();
  for (const outcome of outcomes) {
    if (outcome.status !== "failed") continue;
    failed.set(outcome.name, [...(failed.get(outcome.name) ?? []), outcome]);
  }
  const passedAfterAll: string[] = [];
  const expected = groups.map(({ reason, tests }) => {
    const happened = tests.filter((name) => {
      const one = failed.get(name)?.pop();
      if (one === undefined && ran.has(name)) passedAfterAll.push(name);
      return one !== undefined;
    });
    return { reason, count: happened.length };
  });
  return { expected, unexpected: [...failed.values()].flat(), passedAfterAll };
}
