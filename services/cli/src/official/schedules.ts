/** Schedules and the rules that scale the learning rate to the batch. */
import { type LearningRateRule, type RunSpecInput, scaledLearningRate } from "@paddock/contract";
import { isTree } from "./config.js";
import type { Draft } from "./draft.js";

type SchedulesInput = NonNullable<RunSpecInput["schedules"]>;
type ScheduleInput = NonNullable<SchedulesInput["learningRate"]>;

interface Scaling {
  readonly factor: number;
  readonly formula: string;
}

/** What the learning rate is multiplied with for the global batch. */
function scalingOf(draft: Draft): Scaling {
  const batch = draft.number("train.batch_size_per_gpu") * draft.options.logicalRanks;
  const rule = draft.text("optim.scaling_rule");
  const isV2 = draft.family === "dinov2";
  const scaled = (known: LearningRateRule, formula: string): Scaling => ({
    factor: scaledLearningRate(known, isV2 ? 2 : 3, 1, batch),
    formula,
  });
  if (rule === "sqrt_wrt_1024") return scaled(rule, `${isV2 ? "" : "4 * "}sqrt(${batch} / 1024)`);
  draft.demand(
    !isV2,
    "optim.scaling_rule",
    "sqrt_wrt_1024: DINOv2 has no other",
    "set optim.scaling_rule=sqrt_wrt_1024, and optim.base_lr for a batch of 1024",
  );
  if (rule === "linear_wrt_256") return scaled(rule, `${batch} / 256`);
  draft.warn(
    "optim.scaling_rule",
    "note",
    `DINOv3 has no rule "${rule}" and then does not scale the learning rate; its rules are sqrt_wrt_1024 and linear_wrt_256`,
  );
  return scaled("none", "1");
}

export function schedulesOf(draft: Draft): SchedulesInput {
  return draft.family === "dinov3" && draft.has("schedules")
    ? newSchedules(draft)
    : oldSchedules(draft);
}

/** CosineScheduler of both projects, over all steps of the run. */
function oldSchedules(draft: Draft): SchedulesInput {
  const { factor, formula } = scalingOf(draft);
  const base = draft.family === "dinov2" ? "optim.base_lr" : "optim.lr";
  const truncExtra = draft.family === "dinov2" ? 0 : draft.number("optim.schedule_trunc_extra");
  const peak = draft.derive(
    "schedules.learningRate.peak",
    draft.number(base) * factor,
    `${base} * ${formula}`,
  );
  const warmup = (path: string, key: string): number =>
    draft.derive(key, draft.epochs(path), `${path} * train.OFFICIAL_EPOCH_LENGTH`);
  return {
    learningRate: {
      start: 0,
      peak,
      end: draft.number("optim.min_lr"),
      warmupSteps: warmup("optim.warmup_epochs", "schedules.learningRate.warmupSteps"),
      truncExtra,
    },
    weightDecay: {
      peak: draft.number("optim.weight_decay"),
      end: draft.number("optim.weight_decay_end"),
      truncExtra,
    },
    momentum: {
      peak: draft.number("teacher.momentum_teacher"),
      end: draft.number("teacher.final_momentum_teacher"),
      truncExtra,
    },
    teacherTemperature: {
      start: draft.number("teacher.warmup_teacher_temp"),
      peak: draft.number("teacher.teacher_temp"),
      warmupSteps: warmup(
        "teacher.warmup_teacher_temp_epochs",
        "schedules.teacherTemperature.warmupSteps",
      ),
    },
    freezeLastLayerSteps: warmup(
      "optim.freeze_last_layer_epochs",
      "schedules.freezeLastLayerSteps",
    ),
  };
}

/** The `schedules` block of DINOv3; the keys of optim and teacher that it replaces are not read. */
function newSchedules(draft: Draft): SchedulesInput {
  const { factor, formula } = scalingOf(draft);
  const rate = formOf(draft, "schedules.lr");
  const scaled = (key: "peak" | "end"): number =>
    draft.derive(
      `schedules.learningRate.${key}`,
      (rate[key] ?? 0) * factor,
      `schedules.lr.${key} * ${formula}`,
    );
  return {
    learningRate: { ...rate, peak: scaled("peak"), end: scaled("end") },
    weightDecay: formOf(draft, "schedules.weight_decay"),
    momentum: formOf(draft, "schedules.momentum"),
    teacherTemperature: formOf(draft, "schedules.teacher_temp"),
    freezeLastLayerSteps: draft.derive(
      "schedules.freezeLastLayerSteps",
      draft.epochs("schedules.lr.freeze_last_layer_epochs"),
      "schedules.lr.freeze_last_layer_epochs * train.OFFICIAL_EPOCH_LENGTH",
    ),
  };
}

/** linear_warmup_cosine_decay: start, peak, end, warmup_epochs and, optionally, cosine_epochs. */
export function formOf(draft: Draft, path: string): ScheduleInput {
  draft.demand(
    isTree(draft.get(path)),
    path,
    "start, peak, end and warmup_epochs",
    `give ${path}.start, .peak, .end and .warmup_epochs`,
  );
  const warmupSteps = draft.epochs(`${path}.warmup_epochs`);
  const cosineEpochs = draft.optionalNumber(`${path}.cosine_epochs`);
  const cosineSteps = cosineEpochs === null ? null : draft.epochs(`${path}.cosine_epochs`);
  const total = draft.epochs("optim.epochs");
  draft.demand(
    warmupSteps + (cosineSteps ?? 0) <= total,
    `${path}.warmup_epochs`,
    `warm-up and cosine within the run of ${total} steps`,
    `lower ${path}.warmup_epochs or raise optim.epochs`,
  );
  return {
    kind: "warmup-cosine",
    start: draft.number(`${path}.start`),
    peak: draft.number(`${path}.peak`),
    end: draft.number(`${path}.end`),
    warmupSteps,
    // No cosine at all: `end` follows the warm-up at once, as after a cosine of one step.
    cosineSteps: cosineSteps === null ? null : Math.max(1, cosineSteps),
  };
}
