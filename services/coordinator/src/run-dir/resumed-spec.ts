/** Which fields of a spec a resumed run may change: those that do not touch its numbers, and what guards do from here on. Pure. */
import { PaddockError, type RunSpec } from "@paddock/contract";

/** Paths and everything below them. */
const changeable = [
  "name",
  "fleet",
  "checkpoint",
  "evaluation",
  "guards",
  "exchange.kind",
  "exchange.maxInFlightBytes",
  "exchange.timeoutSeconds",
  "data.path",
  "data.validationPath",
  "data.threads",
  "engine",
];

/** Of those: workers that live on keep to it, and what was saved lies there. */
const unchangeable = ["checkpoint.storage"];

/** Engine and threads decide how sums inside an op are ordered: a change is allowed, and said. */
const bitwise = ["engine.name", "engine.threads"];

/**
 * Paths whose change ends the bit-for-bit continuation, for a warning.
 * `invalid-spec` when `wanted` differs from `recorded` in a field that a run keeps for life.
 */
export function checkResumedSpec(recorded: RunSpec, wanted: RunSpec): string[] {
  const changes = differences(recorded, wanted, "");
  const refused = changes.filter(
    ({ path }) =>
      unchangeable.includes(path) ||
      !changeable.some((prefix) => path === prefix || path.startsWith(`${prefix}.`)),
  );
  if (refused.length > 0) {
    const lines = refused.map(
      ({ path, before, after }) => `  ${path}: expected ${before}, received ${after}`,
    );
    throw new PaddockError(
      "invalid-spec",
      `the spec differs from that of the run to resume:\n${lines.join("\n")}\nresume it without these changes, or start a run in another run directory`,
    );
  }
  return changes.map(({ path }) => path).filter((path) => bitwise.includes(path));
}

interface Difference {
  readonly path: string;
  readonly before: string;
  readonly after: string;
}

function differences(before: unknown, after: unknown, path: string): Difference[] {
  if (isObject(before) && isObject(after)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...keys].flatMap((key) =>
      differences(before[key], after[key], path === "" ? key : `${path}.${key}`),
    );
  }
  const [a, b] = [JSON.stringify(before), JSON.stringify(after)];
  return a === b ? [] : [{ path, before: a ?? "nothing", after: b ?? "nothing" }];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
