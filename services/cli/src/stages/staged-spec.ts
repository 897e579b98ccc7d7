/**
 * A spec with `stages`: several runs, each beginning where the one before ended (pretrain, Gram, high resolution, distillation). What
 * stands beside `stages` is common to all; a stage overrides it: objects are merged, everything else is replaced.
 *
 *   stages:
 *     - name: pretrain
 *     - { name: gram, init: { load: resume }, steps: 1200, loss: { gram: {} } }
 *     - { name: distil, distillation: {}, model: { ... } }
 *
 * `init.checkpoint` and `distillation.checkpoint` default to the last checkpoint of the stage before, the teacher's model and heads to
 * that stage's. A stage with neither starts from the seed.
 */
import { PaddockError, parseRunSpec, type RunSpec } from "@paddock/contract";

type Fields = Readonly<Record<string, unknown>>;

/** Stands for a checkpoint that is not written yet. */
const pending = "(the stage before)";

export interface Stage {
  readonly name: string;
  /** Its run spec, with `pending` where the stage before ends. */
  readonly fields: Fields;
}

export interface StagedSpec {
  readonly name: string;
  readonly stages: readonly Stage[];
}

export function isStaged(value: unknown): boolean {
  return typeof value === "object" && value !== null && "stages" in value;
}

/** Every stage is checked before the first one starts. Errors: `invalid-spec`, with the stage's name. */
export function parseStages(value: unknown): StagedSpec {
  const { stages: given, ...common } = value as Fields;
  if (!Array.isArray(given) || given.length === 0) {
    throw new PaddockError("invalid-spec", "stages: expected a list of stages, received none");
  }
  const stages: Stage[] = [];
  const name = typeof common["name"] === "string" ? common["name"] : "run";
  for (const [index, entry] of given.entries()) {
    const stage = stageOf(common, entry, stages.at(-1), index);
    if (stages.some((known) => known.name === stage.name)) {
      throw new PaddockError(
        "invalid-spec",
        `stages: expected different names, received ${stage.name} twice`,
      );
    }
    stages.push({ ...stage, fields: { ...stage.fields, name: `${name}-${stage.name}` } });
  }
  for (const [index, stage] of stages.entries()) checkStage(stage, index);
  return { name, stages };
}

function stageOf(common: Fields, entry: unknown, before: Stage | undefined, index: number): Stage {
  const { name, ...own } = (entry ?? {}) as Fields;
  if (typeof name !== "string" || !/^[a-z0-9][a-z0-9-]{0,31}$/.test(name)) {
    throw new PaddockError(
      "invalid-spec",
      `stages.${index}.name: expected lower-case letters, digits and "-", received ${JSON.stringify(name)}`,
    );
  }
  const merged = merge(common, own) as Fields;
  const from = (key: "init" | "distillation", more: Fields = {}): Fields => {
    const field = merged[key];
    if (typeof field !== "object" || field === null) return {};
    return { [key]: { checkpoint: pending, ...more, ...field } };
  };
  const teacher = before
    ? { model: before.fields["model"] ?? {}, heads: before.fields["heads"] ?? {} }
    : {};
  return { name, fields: { ...merged, ...from("init"), ...from("distillation", teacher) } };
}

function checkStage({ name, fields }: Stage, index: number): void {
  try {
    parseRunSpec(fields);
  } catch (error) {
    throw inStage(name, error);
  }
  if (index === 0 && needsCheckpoint(fields)) {
    throw new PaddockError(
      "invalid-spec",
      `stage ${name}: there is no stage before it; give init.checkpoint or distillation.checkpoint`,
    );
  }
}

function inStage(name: string, error: unknown): unknown {
  if (!(error instanceof PaddockError) || error.code !== "invalid-spec") return error;
  return new PaddockError("invalid-spec", `stage ${name}: ${error.message}`, { cause: error });
}

export function needsCheckpoint(fields: Fields): boolean {
  return origins(fields).some((origin) => origin?.["checkpoint"] === pending);
}

/** The stage's run spec, now that the stage before has ended with this checkpoint. */
export function specOfStage({ fields }: Stage, checkpoint: string | undefined): RunSpec {
  const [init, distillation] = origins(fields);
  const located = (origin: Fields | undefined): Fields | null => {
    if (!origin) return null;
    return origin["checkpoint"] === pending ? { ...origin, checkpoint } : origin;
  };
  return parseRunSpec({
    ...fields,
    init: located(init),
    distillation: located(distillation),
  });
}

function origins(fields: Fields): [Fields | undefined, Fields | undefined] {
  const of = (key: string): Fields | undefined => (fields[key] ?? undefined) as Fields | undefined;
  return [of("init"), of("distillation")];
}

function merge(base: unknown, over: unknown): unknown {
  if (!isFields(base) || !isFields(over)) return over;
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) merged[key] = merge(base[key], value);
  return merged;
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
