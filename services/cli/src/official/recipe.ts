/** From an official config to a run spec: the effective recipe, with the origin of every value. */
import { PaddockError, parseRunSpec, type RunSpec, type RunSpecInput } from "@paddock/contract";
import { applyOverrides, type Override } from "../spec/overrides.js";
import {
  type Config,
  type ConfigTree,
  isTree,
  leaves,
  lookup,
  merge,
  show,
  treeOf,
} from "./config.js";
import { cropsOf, dataOf, masksOf } from "./crops.js";
import { defaultsOf, detectFamily, unknownKeys } from "./detect.js";
import { type DerivedRow, Draft, type OfficialOptions, type RecipeWarning } from "./draft.js";
import { type Family, type KeyNote, keyNotes } from "./keys.js";
import { lossOf, weightSchedulesOf } from "./loss.js";
import { headsOf, modelOf } from "./model.js";
import {
  checkpointOf,
  distillationOf,
  evaluationOf,
  initOf,
  optimizerOf,
  precisionOf,
  stepsOf,
} from "./run.js";
import { schedulesOf } from "./schedules.js";

/** A key, its value, and the layer that it comes from. */
export interface RecipeRow {
  readonly key: string;
  readonly value: unknown;
  readonly source: "default" | "file" | "override";
}

export interface Recipe {
  readonly kind: Family | "paddock";
  readonly rows: readonly RecipeRow[];
  readonly derived: readonly DerivedRow[];
  readonly warnings: readonly RecipeWarning[];
  /** What keeps the run from starting, each with its remedy. */
  readonly blockers: readonly string[];
  readonly spec: RunSpec;
}

export interface OfficialInput {
  /** What the file holds. */
  readonly file: Config;
  /** Name of the file, for messages. */
  readonly where: string;
  /** `a.b=c` in the config's own keys. */
  readonly overrides: readonly Override[];
  /** Fields of the run spec that flags, and overrides that begin with `paddock.`, set at the end. */
  readonly specOverrides: readonly Override[];
  /** null: found out from the keys. */
  readonly family: Family | null;
  readonly allowUnknown: boolean;
  readonly options: OfficialOptions;
}

/** The effective recipe. Errors: `invalid-spec`, `invalid-argument` with what to change. */
export function officialRecipe(input: OfficialInput): Recipe {
  const { where, options } = input;
  const file = fileTree(input.file, where);
  const set = treeOf(input.overrides);
  const layers = merge(file, set);
  const family = input.family ?? detectFamily(layers);
  const draft = new Draft(family, merge(defaultsOf[family], layers) as ConfigTree, options);
  checkUnknown(draft, layers, input);
  const spec = withFlags(specOf(draft), input.specOverrides, draft);
  noteKeys(draft, layers);
  return {
    kind: family,
    rows: rowsOf(merge(defaultsOf[family], layers), [set, file]),
    derived: draft.derived,
    warnings: draft.warnings,
    blockers: draft.blockers,
    spec: parseRunSpec(spec),
  };
}

function fileTree(file: Config, where: string): ConfigTree {
  if (file === null) return {};
  if (isTree(file)) return file;
  throw new PaddockError(
    "invalid-spec",
    `${where}: expected keys and values, received ${show(file)}`,
  );
}

function checkUnknown(draft: Draft, layers: Config, { allowUnknown, where }: OfficialInput): void {
  const unknown = unknownKeys(layers, draft.family);
  for (const { key } of unknown) {
    if (allowUnknown) draft.warn(key, "ignored", "no such key (--allow-unknown)");
  }
  if (allowUnknown || unknown.length === 0) return;
  const lines = unknown.map(({ key, remedy }) => `  ${key}: unknown key; ${remedy}`);
  throw new PaddockError(
    "invalid-spec",
    `${where}: ${unknown.length} key(s) that the official configs do not have (--allow-unknown ignores them):\n${lines.join("\n")}`,
  );
}

function specOf(draft: Draft): RunSpecInput {
  if (draft.family === "dinov3") checkArchitecture(draft);
  const { logicalRanks, workers, name } = draft.options;
  const steps = stepsOf(draft);
  return {
    name,
    ...steps,
    logicalRanks: draft.derive("logicalRanks", logicalRanks, "--logical-ranks, else the workers"),
    model: modelOf(draft),
    heads: headsOf(draft),
    data: dataOf(draft),
    crops: cropsOf(draft),
    masks: masksOf(draft),
    loss: lossOf(draft),
    schedules: { ...schedulesOf(draft), ...weightSchedulesOf(draft) },
    optimizer: optimizerOf(draft),
    init: initOf(draft),
    distillation: distillationOf(draft),
    ...precisionOf(draft),
    fleet: { workers },
    checkpoint: checkpointOf(draft, steps.steps),
    evaluation: evaluationOf(draft),
  };
}

function checkArchitecture(draft: Draft): void {
  if (draft.boolean("multidistillation.enabled")) {
    throw new PaddockError(
      "invalid-spec",
      "multidistillation.enabled: expected false, received true; Paddock trains one student per run: for each of " +
        "multidistillation.students start a run of its own with --config <its config_path> --official dinov3, distillation.enabled=true, " +
        "distillation.full_cfg_path and distillation.checkpoint_path, and as many --logical-ranks as its ranks_range has",
    );
  }
  const name = draft.text("MODEL.META_ARCHITECTURE");
  if (name === "SSLMetaArch") return;
  draft.demand(
    name === "MultiDistillationMetaArch",
    "MODEL.META_ARCHITECTURE",
    "SSLMetaArch",
    "set MODEL.META_ARCHITECTURE=SSLMetaArch",
  );
  draft.warn("MODEL.META_ARCHITECTURE", "ignored", "one student is trained, as by SSLMetaArch");
}

function withFlags(spec: RunSpecInput, flags: readonly Override[], draft: Draft): unknown {
  for (const { path, value } of flags) draft.derive(path.join("."), value, "command line");
  return applyOverrides(spec, [...scaleFor(spec, flags, draft), ...flags]);
}

/** Gradients that travel in fp16 on request need the scale that nothing else asked for. */
function scaleFor(spec: RunSpecInput, flags: readonly Override[], draft: Draft): Override[] {
  const dtype = flags.findLast(({ path }) => path.join(".") === "exchange.dtype")?.value;
  if (dtype !== "fp16" || spec.exchange?.dtype === "fp16") return [];
  const value = draft.derive("exchange.initialScale", 65536, "gradients travel in fp16");
  return [{ path: ["exchange", "initialScale"], value }];
}

/** A warning for each key that somebody set and that changes nothing here. */
function noteKeys(draft: Draft, layers: Config): void {
  const notes = keyNotes[draft.family];
  for (const [key, value] of leaves(layers)) {
    const note = notes[key];
    if (note) noteKey(draft, key, value, note);
    else if (!draft.used.has(key) && !isEmpty(value) && known(draft, key)) {
      draft.warn(key, "dead", "nothing reads it with the other settings of this config");
    }
  }
}

function known(draft: Draft, key: string): boolean {
  return lookup(defaultsOf[draft.family], key) !== undefined;
}

const isEmpty = (value: Config): boolean => value === null || value === "";

function noteKey(draft: Draft, key: string, value: Config, note: KeyNote): void {
  if (note.neutral !== undefined && note.neutral === value) return;
  if (note.refuse !== undefined)
    throw draft.wrong(key, show(note.neutral), `${note.why}: ${note.refuse}`);
  draft.warn(key, note.kind, note.why);
}

function rowsOf(config: Config, [set, file]: readonly [Config, Config]): RecipeRow[] {
  return leaves(config).map(([key, value]) => ({ key, value, source: sourceOf(key, set, file) }));
}

export function sourceOf(key: string, set: Config, file: Config): RecipeRow["source"] {
  if (lookup(set, key) !== undefined) return "override";
  return lookup(file, key) === undefined ? "default" : "file";
}
