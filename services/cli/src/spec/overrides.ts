/** `a.b=c` on the command line: sets one field of a run spec, the value read as YAML. */
import { PaddockError } from "@paddock/contract";
import { parse } from "yaml";

/** A field and its new value. */
export interface Override {
  /** Keys from the top of the spec. */
  readonly path: readonly string[];
  readonly value: unknown;
}

/** Parses `a.b=c`. Errors: `invalid-argument`. */
export function parseOverride(text: string): Override {
  const at = text.indexOf("=");
  const path = text.slice(0, Math.max(at, 0)).split(".");
  if (at < 1 || path.some((key) => key === "")) {
    throw new PaddockError(
      "invalid-argument",
      `expected an override like optimizer.clipNorm=1, received "${text}"`,
    );
  }
  return { path, value: parseValue(text.slice(at + 1), text) };
}

function parseValue(text: string, override: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    throw wrongValue(override, error);
  }
}

function wrongValue(override: string, cause: unknown): PaddockError {
  return new PaddockError(
    "invalid-argument",
    `expected a YAML value after "=", received "${override}"; quote it if it holds special characters`,
    { cause },
  );
}

/** `spec` with the overrides applied in order; objects on the way are made, arrays are indexed by number. `spec` is not changed. */
export function applyOverrides(spec: unknown, overrides: readonly Override[]): unknown {
  return overrides.reduce((current, { path, value }) => withField(current, path, value), spec);
}

function withField(target: unknown, path: readonly string[], value: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return value;
  if (Array.isArray(target)) {
    return target.map((item, i) => (String(i) === key ? withField(item, rest, value) : item));
  }
  const fields = typeof target === "object" && target !== null ? target : {};
  const inner = (fields as Readonly<Record<string, unknown>>)[key];
  return { ...fields, [key]: withField(inner, rest, value) };
}
