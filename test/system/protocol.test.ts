/** A bounded part of `npm run check:protocol`. */
import { expect, test } from "vitest";
import { explore } from "../protocol/explore.js";

test.each(["none", "shadow"] as const)(
  "redundancy %s: with two workers, two steps and one fault every order of events keeps the invariants",
  (redundancy) => {
    const bounds = { workers: 2, steps: 2, faults: 1, redundancy };
    const found = explore(bounds, { maxStates: 100_000 });
    expect(found.violation).toBeUndefined();
    expect(found.isComplete).toBe(true);
    expect(found.states).toBeGreaterThan(20_000);
    expect(found.finished).toBeGreaterThan(100);
  },
);
