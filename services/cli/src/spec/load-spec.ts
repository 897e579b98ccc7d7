/** From a file and the command line to one validated run spec. */
import { readFile } from "node:fs/promises";
import { dirname, extname } from "node:path";
import { PaddockError, parseRunSpec, type RunSpec } from "@paddock/contract";
import { absolutePlace } from "@paddock/service-kit/checkpoint-store";
import { isStaged, parseStages } from "../stages/staged-spec.js";
import { applyOverrides, type Override } from "./overrides.js";
import { importSpec } from "./typescript-spec.js";
import { parseSpecText } from "./yaml-spec.js";

interface Source {
  readonly value: unknown;
  lineOf(path: readonly string[]): number | undefined;
}

/**
 * The spec of `file` (.yaml, .yml, .json or .ts, absolute) with `overrides` applied. Relative dataset paths in the file are
 * relative to the file, those in overrides must be absolute already; the result's are absolute.
 * Errors: `not-found`, `invalid-spec` with every problem, its line in the file, and the remedy.
 */
export async function loadSpec(file: string, overrides: readonly Override[]): Promise<RunSpec> {
  return loadAs(file, overrides, parseRunSpec);
}

/** As `loadSpec`, for a spec that may have stages: then its value, paths absolute and overrides applied, every stage checked. */
export async function loadPlan(
  file: string,
  overrides: readonly Override[],
): Promise<{ readonly spec: RunSpec } | { readonly name: string; readonly stages: unknown }> {
  return loadAs(file, overrides, (value) =>
    isStaged(value)
      ? { name: parseStages(value).name, stages: value }
      : { spec: parseRunSpec(value) },
  );
}

async function loadAs<T>(
  file: string,
  overrides: readonly Override[],
  parse: (value: unknown) => T,
): Promise<T> {
  const source = await readSource(file);
  const located = absolutePaths(source.value, dirname(file));
  try {
    return parse(applyOverrides(located, overrides));
  } catch (error) {
    throw withLines(error, { file, source, overrides });
  }
}

/** What the file itself holds. */
export async function readSpecValue(file: string): Promise<unknown> {
  return (await readSource(file)).value;
}

async function readSource(file: string): Promise<Source> {
  if (extname(file) === ".ts") {
    await readText(file);
    return { value: await importSpec(file), lineOf: () => undefined };
  }
  return parseSpecText(await readText(file), file);
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw unreadable(file, error);
  }
}

function unreadable(file: string, cause: unknown): PaddockError {
  return new PaddockError(
    "not-found",
    `expected a run spec at ${file}, received: ${PaddockError.from(cause).message}; examples lie in deploy/runs`,
    { cause },
  );
}

/** Fields that name files or folders. */
const pathFields = [
  ["data", "path"],
  ["data", "validationPath"],
  ["init", "checkpoint"],
  ["distillation", "checkpoint"],
  ["loss", "gram", "checkpoint"],
];

/** What a spec names, resolved against its folder. */
function absolutePaths(spec: unknown, folder: string): unknown {
  const stages = (spec as { stages?: unknown } | null)?.stages;
  const own = withAbsolutePaths(spec, folder);
  if (!Array.isArray(stages)) return own;
  return { ...(own as object), stages: stages.map((stage) => withAbsolutePaths(stage, folder)) };
}

function withAbsolutePaths(spec: unknown, folder: string): unknown {
  return pathFields.reduce((current, path) => {
    const value = path.reduce<unknown>(
      (inner, key) => (inner as Readonly<Record<string, unknown>> | null | undefined)?.[key],
      spec,
    );
    if (typeof value !== "string" || value === "") return current;
    return applyOverrides(current, [{ path, value: absolutePlace(value, folder) }]);
  }, spec);
}

/** Adds to each problem of an `invalid-spec` error where it comes from: a line of the file, or the command line. */
function withLines(
  error: unknown,
  from: { file: string; source: Source; overrides: readonly Override[] },
): unknown {
  if (!(error instanceof PaddockError) || error.code !== "invalid-spec") return error;
  const lines = error.message.split("\n").map((line) => {
    const path = /^ {2}([\w.]+):/.exec(line)?.[1]?.split(".");
    const place = path && placeOf(path, from);
    return place ? `${line} (${place})` : line;
  });
  return new PaddockError("invalid-spec", `${from.file}: ${lines.join("\n")}`, { cause: error });
}

function placeOf(
  path: readonly string[],
  { source, overrides }: { source: Source; overrides: readonly Override[] },
): string | undefined {
  if (overrides.some((o) => o.path.join(".") === path.join("."))) return "command line";
  const line = source.lineOf(path);
  return line === undefined ? undefined : `line ${line}`;
}
