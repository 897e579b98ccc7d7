/** Whether two specs describe the same training: what resuming a run with a spec file must make sure of. */
import type { RunSpec } from "@paddock/contract";

/** Fields that may change between a run and its continuation: they do not touch the numbers. */
const free = ["fleet", "checkpoint.keep", "data.path", "data.validationPath", "data.threads"];

/** "a.b: 1 became 2" of the first field that differs, or undefined. */
export function firstDifference(before: RunSpec, after: RunSpec): string | undefined {
  return differenceAt([], before, after);
}

function differenceAt(path: readonly string[], a: unknown, b: unknown): string | undefined {
  if (free.includes(path.join(".")) || a === b) return undefined;
  if (!isObject(a) || !isObject(b)) {
    return `${path.join(".")}: ${JSON.stringify(a)} became ${JSON.stringify(b)}`;
  }
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const difference = differenceAt([...path, key], a[key], b[key]);
    if (difference) return difference;
  }
  return undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
