/** Steps, batches, optimizer, precision, checkpoints, and where weights come from. */
import type { RunSpecInput } from "@paddock/contract";
import { type ConfigTree, isTree, merge } from "./config.js";
import { defaultsOf, detectFamily } from "./detect.js";
import { Draft, isPlaceholder } from "./draft.js";
import { headsOf, modelOf } from "./model.js";

type Part<Key extends keyof RunSpecInput> = NonNullable<RunSpecInput[Key]>;

export function stepsOf(draft: Draft): Pick<RunSpecInput, "steps" | "seed" | "batchPerRank"> {
  const batchPerRank = draft.number("train.batch_size_per_gpu");
  const { logicalRanks } = draft.options;
  draft.derive(
    "global batch",
    batchPerRank * logicalRanks,
    `train.batch_size_per_gpu * ${logicalRanks} logical ranks`,
  );
  return {
    steps: draft.derive(
      "steps",
      draft.epochs("optim.epochs"),
      "optim.epochs * train.OFFICIAL_EPOCH_LENGTH",
    ),
    seed: draft.family === "dinov3" ? draft.number("train.seed") : 0,
    batchPerRank,
  };
}

export function optimizerOf(draft: Draft): Part<"optimizer"> {
  return {
    kind: "adamw",
    beta1: draft.number("optim.adamw_beta1"),
    beta2: draft.number("optim.adamw_beta2"),
    layerDecay: draft.number("optim.layerwise_decay"),
    patchEmbedMultiplier: draft.number("optim.patch_embed_lr_mult"),
    clipNorm: draft.optionalNumber("optim.clip_grad") ?? 0,
  };
}

const dtypes = { fp32: "fp32", fp16: "fp16", bf16: "bf16" } as const;

export function precisionOf(draft: Draft): Pick<RunSpecInput, "engine" | "exchange"> {
  const two = draft.family === "dinov2";
  const part = "compute_precision.student.backbone.mixed_precision";
  const official = draft.choice(
    two ? `${part}.param_dtype` : "compute_precision.param_dtype",
    dtypes,
  );
  const reduce = draft.choice(
    two ? `${part}.reduce_dtype` : "compute_precision.reduce_dtype",
    dtypes,
  );
  const precision = chosenPrecision(draft, official);
  // Weights and sums travel in one of two types here; fp32 holds every bf16 number.
  const dtype = draft.derive(
    "exchange.dtype",
    reduce === "fp16" ? ("fp16" as const) : ("fp32" as const),
    two ? "student backbone's reduce_dtype" : "compute_precision.reduce_dtype",
  );
  const scaled = precision === "fp16" || dtype === "fp16";
  const scaler = two ? draft.boolean("compute_precision.grad_scaler") : true;
  return {
    engine: { precision, activations: activations(draft) },
    exchange: {
      dtype,
      initialScale: draft.derive(
        "exchange.initialScale",
        scaled && scaler ? 65536 : 1,
        scaled ? "the gradient scaler's" : "nothing is fp16",
      ),
    },
  };
}

function chosenPrecision(
  draft: Draft,
  official: "fp32" | "fp16" | "bf16",
): "fp32" | "fp16" | "bf16" {
  const { precision, fp32Because } = draft.options;
  const key = "engine.precision";
  if (precision !== null) return draft.derive(key, precision, "--precision");
  if (fp32Because === null || official === "fp32") {
    return draft.derive(key, official, "compute_precision");
  }
  return draft.derive(
    key,
    "fp32",
    `${fp32Because}; the config says ${official} (--precision ${official})`,
  );
}

function activations(draft: Draft): "keep" | "recompute" {
  if (draft.family === "dinov2") return "keep";
  const full = draft.boolean("train.checkpointing_full");
  const some = draft.boolean("train.checkpointing");
  if (some && !full) {
    draft.warn(
      "train.checkpointing",
      "note",
      "whole blocks are recomputed, where the official code keeps products of matrices; the numbers are the same",
    );
  }
  return some ? "recompute" : "keep";
}

export function checkpointOf(draft: Draft, steps: number): Part<"checkpoint"> {
  if (draft.family === "dinov2") {
    const everySteps = 3 * draft.number("train.OFFICIAL_EPOCH_LENGTH");
    draft.derive("checkpoint.everySteps", everySteps, "3 * train.OFFICIAL_EPOCH_LENGTH, as coded");
    return { everySteps, keep: draft.derive("checkpoint.keep", 3, "3, as coded") };
  }
  const everySteps = draft.number("checkpointing.period");
  const keepEvery = draft.optionalNumber("checkpointing.keep_every");
  if (keepEvery !== null && keepEvery < steps) {
    draft.warn(
      "checkpointing.keep_every",
      "unsupported",
      `checkpoints at multiples of ${keepEvery} are deleted like others: raise checkpointing.max_to_keep, or copy them`,
    );
  }
  const keep = draft.optionalNumber("checkpointing.max_to_keep");
  return { everySteps, keep: keep ?? Math.ceil(steps / everySteps) + 1 };
}

export function evaluationOf(draft: Draft): Part<"evaluation"> {
  const everySteps = draft.number("evaluation.eval_period_iterations");
  draft.warn(
    "evaluation.eval_period_iterations",
    "note",
    "the official code saves the teacher then; Paddock measures it by k-NN if there are labelled images",
  );
  return { everySteps: Math.max(0, everySteps) };
}

/** Weights to start from. */
export function initOf(draft: Draft): RunSpecInput["init"] {
  if (draft.family === "dinov3") {
    return initFrom(draft, "student.resume_from_teacher_chkpt", "teacher");
  }
  const whole = initFrom(draft, "MODEL.WEIGHTS", "resume");
  const backbone = initFrom(draft, "student.pretrained_weights", "backbone");
  return whole ?? backbone;
}

function initFrom(
  draft: Draft,
  path: string,
  load: "resume" | "teacher" | "backbone",
): RunSpecInput["init"] {
  const checkpoint = draft.text(path);
  if (checkpoint === "") return null;
  if (isPlaceholder(checkpoint) || checkpoint.endsWith(".pth")) {
    draft.blockers.push(
      `${path}: expected a checkpoint directory of Paddock, or a .safetensors file, received ${checkpoint}; set ${path}=/path or ${path}=''`,
    );
    return null;
  }
  draft.derive("init.load", load, path);
  return { checkpoint, load };
}

/** The frozen teacher of a distillation: its own config says what it is. */
export function distillationOf(draft: Draft): RunSpecInput["distillation"] {
  if (draft.family === "dinov2") return null;
  if (!draft.boolean("distillation.enabled")) {
    draft.get("distillation.full_cfg_path");
    draft.get("distillation.checkpoint_path");
    return null;
  }
  const config = draft.text("distillation.full_cfg_path");
  const checkpoint = draft.text("distillation.checkpoint_path");
  const unfilled = [
    ["full_cfg_path", config] as const,
    ["checkpoint_path", checkpoint] as const,
  ].filter(([, path]) => path === "" || isPlaceholder(path) || path.endsWith(".pth"));
  for (const [key, path] of unfilled) {
    const what = key === "full_cfg_path" ? "the teacher's config file" : "a checkpoint directory";
    const meaning = path === "ignore" ? ", which means a teacher with random weights" : "";
    draft.blockers.push(
      `distillation.${key}: expected ${what}, received ${path || "nothing"}${meaning}; set distillation.${key}=/path`,
    );
  }
  if (unfilled.length > 0) return null;
  return { checkpoint, ...teacherOf(draft, config) };
}

function teacherOf(draft: Draft, file: string): Pick<Part<"distillation">, "model" | "heads"> {
  const raw = draft.options.read(file);
  draft.demand(
    isTree(raw) && (raw["student"] !== undefined || raw["dino"] !== undefined),
    "distillation.full_cfg_path",
    "a config file of DINOv3",
    "give the teacher's own",
  );
  const family = familyOfTeacher(raw as ConfigTree);
  draft.demand(
    family === "dinov3",
    "distillation.full_cfg_path",
    "a config file of DINOv3",
    "give the teacher's own",
  );
  const merged = merge(defaultsOf[family], raw as ConfigTree) as ConfigTree;
  const teacher = new Draft(family, merged, draft.options);
  for (const key of ["dino.head_n_prototypes", "ibot.head_n_prototypes", "student.patch_size"]) {
    const expected = teacher.number(key);
    draft.demand(
      draft.number(key) === expected,
      key,
      `the teacher's ${expected}`,
      `set ${key}=${expected}`,
    );
  }
  return { model: modelOf(teacher), heads: headsOf(teacher) };
}

/** A teacher's file that holds only shared keys is DINOv3's, as the config that names it. */
function familyOfTeacher(config: ConfigTree): "dinov2" | "dinov3" {
  try {
    return detectFamily(config);
  } catch {
    return "dinov3";
  }
}
