/** From files and flags to an effective recipe: of an official config, or of one of Paddock's own run specs. */
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, extname, resolve } from "node:path";
import { PaddockError, RunSpec } from "@paddock/contract";
import { absolutePlace } from "@paddock/service-kit/checkpoint-store";
import {
  type Config,
  leaves,
  parseConfig,
  parseOfficialOverride,
  treeOf,
} from "../official/config.js";
import { isRunSpec } from "../official/detect.js";
import type { OfficialOptions } from "../official/draft.js";
import { officialRecipe, type Recipe, sourceOf } from "../official/recipe.js";
import { type OfficialOnlyFlags, refuseOfficialFlags } from "./flag-overrides.js";
import { loadSpec, readSpecValue } from "./load-spec.js";
import { type Override, parseOverride } from "./overrides.js";

/** What of a recipe comes from flags. */
export interface RecipeFlags extends OfficialOnlyFlags {
  readonly workers?: number;
  readonly engine?: string;
  readonly data?: string;
}

export interface RecipeRequest {
  readonly flags: RecipeFlags;
  readonly overrides: readonly string[];
  /** Fields of the run spec that other flags stand for. */
  readonly fromFlags: readonly Override[];
  readonly cwd: string;
}

const defaultWorkers = 2;
const ownPrefix = "paddock.";
/** Fields whose flags the mapping itself takes into account. */
const ownFlags = new Set(["fleet.workers", "data.path"]);

/** The recipe of the official config in `file` (absolute). Errors: `not-found`, `invalid-spec`, `invalid-argument`. */
export async function loadOfficialRecipe(file: string, request: RecipeRequest): Promise<Recipe> {
  const { flags, overrides, fromFlags } = request;
  const own = overrides.filter((text) => text.startsWith(ownPrefix));
  const official = overrides.filter((text) => !text.startsWith(ownPrefix));
  return officialRecipe({
    file: parseConfig(await readConfig(file), file),
    where: file,
    overrides: official.map(parseOfficialOverride),
    specOverrides: [
      ...fromFlags.filter(({ path }) => !ownFlags.has(path.join("."))),
      ...own.map((text) => parseOverride(text.slice(ownPrefix.length))),
    ],
    family: flags.official ?? null,
    allowUnknown: flags.allowUnknown === true,
    options: optionsOf(file, request),
  });
}

function optionsOf(file: string, { flags, cwd }: RecipeRequest): OfficialOptions {
  const logicalRanks = flags.logicalRanks ?? flags.workers ?? defaultWorkers;
  const workers = flags.workers ?? Math.min(defaultWorkers, logicalRanks);
  return {
    name: nameOf(file),
    logicalRanks,
    workers,
    maxThreads: Math.max(1, Math.floor(availableParallelism() / workers)),
    precision: flags.precision ?? null,
    fp32Because: fp32Because(flags.engine),
    data: flags.data === undefined ? null : resolve(cwd, flags.data),
    exists: (path) => existsSync(resolve(cwd, path)),
    read: (path) => readConfigNow(resolve(cwd, path)),
  };
}

/** A run's name from its file's: letters, digits, '.', '_' and '-'. */
function nameOf(file: string): string {
  const name = basename(file, extname(file)).replace(/[^a-zA-Z0-9._-]/g, "-");
  return name.replace(/^[^a-zA-Z0-9]+/, "").slice(0, 64) || "official";
}

function fp32Because(engine: string | undefined): string | null {
  if (engine === "wasm" || engine === "tensorflow") return `the ${engine} engine has only fp32`;
  return existsSync("/dev/nvidiactl") ? null : "no GPU on this machine";
}

async function readConfig(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw unreadable(file, error);
  }
}

function readConfigNow(file: string): Config {
  try {
    return parseConfig(readFileSync(file, "utf8"), file);
  } catch (error) {
    throw unreadable(file, error);
  }
}

function unreadable(file: string, cause: unknown): PaddockError {
  if (cause instanceof PaddockError) return cause;
  return new PaddockError(
    "not-found",
    `expected a config file at ${file}, received: ${PaddockError.from(cause).message}`,
    { cause },
  );
}

/** The recipe of `file` (absolute), whichever kind of config it is. */
export async function loadAnyRecipe(file: string, request: RecipeRequest): Promise<Recipe> {
  if (request.flags.official === undefined && (await isOwnFile(file)))
    return ownRecipe(file, request);
  return loadOfficialRecipe(file, request);
}

/** Whether `file` is a run spec of Paddock's own, with or without stages. */
export async function isOwnFile(file: string): Promise<boolean> {
  if (extname(file) === ".ts") return true;
  return isRunSpec(parseConfig(await readConfig(file), file));
}

async function ownRecipe(file: string, request: RecipeRequest): Promise<Recipe> {
  refuseOfficialFlags(request.flags);
  const overrides = [...request.fromFlags, ...request.overrides.map(parseOverride)];
  const spec = RunSpec.parse(await loadSpec(file, overrides));
  const layers = [treeOf(overrides), (await readSpecValue(file)) as Config] as const;
  return {
    kind: "paddock",
    rows: leaves(spec).map(([key, value]) => ({ key, value, source: sourceOf(key, ...layers) })),
    derived: [],
    warnings: [],
    blockers: [],
    spec,
  };
}

/** Refuses a recipe that something is missing for. */
export function checkReady({ blockers }: Recipe, file: string): void {
  if (blockers.length === 0) return;
  throw new PaddockError(
    "invalid-spec",
    `${file}: expected a config that is filled in, received one with ${blockers.length} gap(s):\n${blockers.map((text) => `  ${text}`).join("\n")}`,
  );
}

/** The folder that relative paths in a config are relative to is where the command runs, as in the official code. */
export function withAbsolutePaths(spec: RunSpec, cwd: string): RunSpec {
  const absolute = <T extends string | null>(path: T): T =>
    (path === null ? path : absolutePlace(path, cwd)) as T;
  const { data, init, distillation, loss } = spec;
  return {
    ...spec,
    data: { ...data, path: absolute(data.path), validationPath: absolute(data.validationPath) },
    init: init && { ...init, checkpoint: absolute(init.checkpoint) },
    distillation: distillation && {
      ...distillation,
      checkpoint: absolute(distillation.checkpoint),
    },
    loss: {
      ...loss,
      gram: loss.gram && { ...loss.gram, checkpoint: absolute(loss.gram.checkpoint) },
    },
  };
}
