/** Losses. */
import type { RunSpecInput } from "@paddock/contract";
import { type Draft, isPlaceholder } from "./draft.js";
import { formOf } from "./schedules.js";

type LossInput = NonNullable<RunSpecInput["loss"]>;
type GramInput = NonNullable<LossInput["gram"]>;
type SchedulesInput = NonNullable<RunSpecInput["schedules"]>;

export function lossOf(draft: Draft): LossInput {
  const common: LossInput = {
    dino: draft.number("dino.loss_weight"),
    ibot: draft.number("ibot.loss_weight"),
    koleo: draft.number("dino.koleo_loss_weight"),
    centering: draft.choice("train.centering", {
      centering: "softmax",
      sinkhorn_knopp: "sinkhorn",
    } as const),
  };
  if (draft.family === "dinov2") return common;
  draft.demand(
    common.centering === "sinkhorn",
    "train.centering",
    "sinkhorn_knopp: DINOv3 has no other",
    "set train.centering=sinkhorn_knopp",
  );
  return {
    ...common,
    samePairs: !draft.boolean("dino.global_ignore_diagonal"),
    ...koleo(draft),
    gram: draft.boolean("gram.use_loss") ? gram(draft) : unusedGram(draft),
  };
}

function koleo(draft: Draft): LossInput {
  const koleoTopk = draft.number("dino.koleo_topk");
  draft.demand(
    draft.number("dino.koleo_distributed_replicas") === 0,
    "dino.koleo_distributed_replicas",
    "0: the official code dropped it",
    "use dino.koleo_distributed_loss_group_size",
  );
  const group = draft.optionalNumber("dino.koleo_distributed_loss_group_size");
  if (draft.boolean("dino.koleo_loss_distributed"))
    return { koleoTopk, koleoGroup: group ?? "all" };
  draft.demand(
    koleoTopk === 1,
    "dino.koleo_topk",
    "1 unless KoLeo is distributed",
    "set dino.koleo_loss_distributed=true or dino.koleo_topk=1",
  );
  return { koleoTopk };
}

/** Reads what a switched-off loss has, so that nothing is called unknown; the result is none. */
function unusedGram(draft: Draft): null {
  for (const key of gramKeys) draft.get(`gram.${key}`);
  return null;
}

const gramKeys = [
  "loss_weight",
  "ema_teacher",
  "ckpt",
  "it_load_ema_teacher",
  "rep_update",
  "update_frequency",
  "it_first_update",
  "max_updates",
  "normalized",
  "img_level",
  "remove_neg",
  "remove_only_teacher_neg",
  "tokens_used",
  "global_teacher_resize_method",
  "global_teacher_resize_antialias",
  "loss_weight_schedule",
];

function gram(draft: Draft): GramInput {
  const ema = draft.boolean("gram.ema_teacher");
  const imageLevel = draft.boolean("gram.img_level");
  const tokens = draft.choice("gram.tokens_used", {
    all: "all",
    masked: "masked",
    unmasked: "unmasked",
  } as const);
  draft.demand(
    tokens === "all" || !imageLevel,
    "gram.tokens_used",
    "all where gram.img_level is true",
    "set gram.img_level=false or gram.tokens_used=all",
  );
  const cropSizes = draft.numbers("crops.gram_teacher_crops_size");
  draft.demand(
    ema === (cropSizes.length === 0),
    "crops.gram_teacher_crops_size",
    "a size, or null where gram.ema_teacher is true",
    "set crops.gram_teacher_crops_size to the global crops' size or more, or gram.ema_teacher=true",
  );
  return {
    teacher: ema ? "ema" : "frozen",
    checkpoint: ema ? null : gramCheckpoint(draft),
    update: ema ? null : gramUpdate(draft),
    loadStep: ema ? null : gramLoadStep(draft),
    normalized: draft.boolean("gram.normalized"),
    imageLevel,
    negatives: negatives(draft),
    tokens,
    resize: draft.choice("gram.global_teacher_resize_method", {
      bicubic: "bicubic",
      bilinear: "bilinear",
    } as const),
    antialias: draft.boolean("gram.global_teacher_resize_antialias"),
    ...(ema ? emaConditions(draft) : {}),
  };
}

function emaConditions(draft: Draft): GramInput {
  draft.demand(
    !draft.boolean("gram.rep_update"),
    "gram.rep_update",
    "false where gram.ema_teacher is true",
    "set gram.rep_update=false",
  );
  draft.demand(
    (draft.get("gram.ckpt") ?? null) === null,
    "gram.ckpt",
    "null where gram.ema_teacher is true",
    "set gram.ckpt=null",
  );
  for (const key of ["it_load_ema_teacher", "update_frequency", "it_first_update", "max_updates"]) {
    draft.get(`gram.${key}`);
  }
  return {};
}

function gramCheckpoint(draft: Draft): string | null {
  const checkpoint = draft.text("gram.ckpt");
  if (checkpoint !== "" && !isPlaceholder(checkpoint)) return checkpoint;
  if (draft.number("gram.it_load_ema_teacher") >= 0) return null;
  draft.blockers.push(
    "gram.ckpt names no checkpoint; set gram.ckpt=<checkpoint directory>, or gram.it_load_ema_teacher=0 to take the run's own first teacher",
  );
  return null;
}

/** The official code updates after step n when n >= it_first_update and n is a multiple of update_frequency. */
function gramUpdate(draft: Draft): GramInput["update"] {
  const every = draft.number("gram.update_frequency");
  const earliest = draft.number("gram.it_first_update");
  const max = draft.optionalNumber("gram.max_updates");
  if (!draft.boolean("gram.rep_update")) return null;
  const first = draft.derive(
    "loss.gram.update.first",
    Math.ceil(Math.max(1, earliest) / every) * every,
    "first multiple of gram.update_frequency from gram.it_first_update",
  );
  return { first, every, max };
}

/** 0 is the run's own first teacher, which the frozen one is anyhow. */
function gramLoadStep(draft: Draft): number | null {
  const step = draft.number("gram.it_load_ema_teacher");
  return step > 0 ? step : null;
}

function negatives(draft: Draft): "keep" | "remove" | "remove-teacher" {
  const both = draft.boolean("gram.remove_neg");
  const teacher = draft.boolean("gram.remove_only_teacher_neg");
  draft.demand(
    !(both && teacher),
    "gram.remove_only_teacher_neg",
    "false where gram.remove_neg is true",
    "set one of them to false",
  );
  if (both) return "remove";
  return teacher ? "remove-teacher" : "keep";
}

/** Weights of losses that DINOv3 has schedules for. */
export function weightSchedulesOf(draft: Draft): SchedulesInput {
  if (draft.family === "dinov2") return {};
  return { localWeight: localWeight(draft), gramWeight: gramWeight(draft) };
}

const constant = (value: number): NonNullable<SchedulesInput["localWeight"]> => ({
  start: value,
  peak: value,
  end: value,
});

function localWeight(draft: Draft): SchedulesInput["localWeight"] {
  const path = "dino.local_loss_weight_schedule";
  if (draft.boolean("dino.reweight_dino_local_loss")) return formOf(draft, path);
  for (const key of ["start", "peak", "end", "warmup_epochs", "cosine_epochs"]) {
    draft.get(`${path}.${key}`);
  }
  return constant(
    draft.derive("schedules.localWeight", 1, "dino.reweight_dino_local_loss is false"),
  );
}

function gramWeight(draft: Draft): SchedulesInput["gramWeight"] {
  const path = "gram.loss_weight_schedule";
  const weight = draft.number("gram.loss_weight");
  if (!draft.boolean("gram.use_loss") || !draft.get(path)) return constant(weight);
  if (weight !== 1) {
    draft.warn("gram.loss_weight", "dead", "gram.loss_weight_schedule replaces it");
  }
  return formOf(draft, path);
}
