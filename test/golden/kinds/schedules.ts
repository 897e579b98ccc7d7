/** Schedules of the three projects, at every step and past the end. */
import {
  type LearningRateRule,
  type RunSpec,
  type Schedule,
  scaledLearningRate,
  scheduleAt,
} from "@paddock/contract";
import { asDouble, type Check } from "../check.js";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import {
  cosine,
  type OfficialCosine,
  type OfficialWarmupCosine,
  officialScalars,
  specOfSchedules,
  valuesOf,
  warmupCosine,
} from "../official-schedules.js";

/** A file without tensors to compute with. */
const holdsOnlyResults = (golden: Golden): boolean =>
  golden.names().every((name) => name.startsWith("outputs."));

interface EpochCosine {
  readonly base_value: number;
  readonly final_value: number;
  readonly epochs: number;
  readonly niter_per_ep: number;
  readonly warmup_epochs?: number;
  readonly start_warmup_value?: number;
}

const isEpochCosine = (config: unknown): config is EpochCosine =>
  typeof config === "object" && config !== null && "niter_per_ep" in config;

/** DINO's cosine_scheduler: epochs of niter_per_ep steps. */
export const dinoSchedules: Kind = {
  name: "dino-schedules",
  matches: (golden) =>
    holdsOnlyResults(golden) &&
    golden.family === "dinov1" &&
    Object.values(golden.config).every(isEpochCosine),
  run(golden, check) {
    for (const [name, c] of Object.entries<EpochCosine>(golden.config)) {
      onlyKnown(name, c, [...cosineKeys, "epochs", "niter_per_ep", "warmup_epochs"]);
      const warmup_iters = (c.warmup_epochs ?? 0) * c.niter_per_ep;
      checkValues(golden, check, name, cosine({ ...c, warmup_iters }), c.epochs * c.niter_per_ep);
    }
  },
};

const cosineKeys = ["base_value", "final_value", "start_warmup_value"];
const schedulerKeys = [...cosineKeys, "total_iters", "warmup_iters", "freeze_iters", "trunc_extra"];

type TotalCosine = OfficialCosine & { readonly total_iters: number };

/** DINOv2's build_schedulers, and CosineScheduler alone. */
export const schedulesOfV2: Kind = {
  name: "dinov2-schedules",
  matches: (golden) =>
    holdsOnlyResults(golden) && golden.family === "dinov2" && "teacher" in golden.config,
  run(golden, check) {
    const {
      optim,
      teacher,
      OFFICIAL_EPOCH_LENGTH,
      batch_size_per_gpu,
      total_iterations,
      ...alone
    } = golden.config;
    const lr = scaledLearningRate(ruleOf(optim.scaling_rule), 2, optim.base_lr, batch_size_per_gpu);
    check.close("optim.lr", [lr], [optim.lr], asDouble);
    const spec = specOfEpochs(total_iterations, OFFICIAL_EPOCH_LENGTH, { ...optim, lr }, teacher);
    checkScalars(golden, check, "outputs.", spec);
    for (const [name, c] of Object.entries<TotalCosine>(alone)) {
      onlyKnown(name, c, schedulerKeys);
      checkValues(golden, check, name, cosine(c), c.total_iters);
    }
  },
};

/** DINOv3's functions alone, and both forms of its build_schedulers. */
export const schedulesOfV3: Kind = {
  name: "dinov3-schedules",
  matches: (golden) =>
    holdsOnlyResults(golden) &&
    golden.family === "dinov3" &&
    golden.names("outputs.").some((name) => /^outputs\.(linear|cosine|build_v\d)\./.test(name)),
  run(golden, check) {
    const { linear = {}, cosine: cosines = {}, build, schedules_v2, ...rest } = golden.config;
    onlyKnown("config", rest, []);
    for (const [name, c] of Object.entries<OfficialWarmupCosine & { total_iterations: number }>(
      linear,
    )) {
      onlyKnown(name, c, [...warmupCosineKeys, "total_iterations"]);
      checkValues(golden, check, `linear.${name}`, warmupCosine(c), c.total_iterations);
    }
    for (const [name, c] of Object.entries<TotalCosine>(cosines)) {
      onlyKnown(name, c, schedulerKeys);
      checkValues(golden, check, `cosine.${name}`, cosine(c), c.total_iters);
    }
    if (!build) return;
    const { OFFICIAL_EPOCH_LENGTH: epoch, optim, teacher, batch_size_per_gpu } = build;
    const steps = optim.epochs * epoch;
    checkScalars(golden, check, "outputs.build_v1.", specOfEpochs(steps, epoch, optim, teacher));
    for (const rule of rulesIn(golden)) {
      const scale = (lr: number): number =>
        scaledLearningRate(ruleOf(rule), 3, lr, batch_size_per_gpu);
      const spec = specOfWarmups(steps, epoch, schedules_v2, scale);
      checkScalars(golden, check, `outputs.build_v2.${rule}.`, spec);
    }
  },
};

const warmupCosineKeys = ["start", "peak", "end", "warmup_iterations", "cosine_iterations"];

function ruleOf(name: string): LearningRateRule {
  if (name === "none" || name === "linear_wrt_256" || name === "sqrt_wrt_1024") return name;
  throw new RangeError(`expected a known scaling rule, received ${name}`);
}

/** The rules of build_v2.<rule>.<schedule>. */
function rulesIn(golden: Golden): Set<string> {
  const prefix = "outputs.build_v2.";
  return new Set(golden.names(prefix).map((name) => name.slice(prefix.length).split(".")[0] ?? ""));
}

function checkValues(
  golden: Golden,
  check: Check,
  name: string,
  schedule: Schedule,
  steps: number,
): void {
  const recorded = golden.f64(`outputs.${name}`);
  const values = recorded.map((_, step) => scheduleAt(schedule, step, steps));
  check.tensor(`outputs.${name}`, values, asDouble);
}

function checkScalars(golden: Golden, check: Check, prefix: string, spec: RunSpec): void {
  for (const scalar of officialScalars) {
    const name = prefix + scalar;
    if (golden.has(name)) {
      check.tensor(name, valuesOf(spec, scalar, golden.f64(name).length), asDouble);
    }
  }
}

/** Cosines whose warm-ups are counted in epochs of `epoch` steps: DINOv2, and DINOv3 without `schedules`. */
function specOfEpochs(
  steps: number,
  epoch: number,
  optim: Golden["config"],
  teacher: Golden["config"],
): RunSpec {
  const trunc_extra = optim.schedule_trunc_extra ?? 0;
  return specOfSchedules(steps, {
    learningRate: cosine({
      base_value: optim.lr,
      final_value: optim.min_lr,
      warmup_iters: optim.warmup_epochs * epoch,
      trunc_extra,
    }),
    weightDecay: cosine({
      base_value: optim.weight_decay,
      final_value: optim.weight_decay_end,
      trunc_extra,
    }),
    momentum: cosine({
      base_value: teacher.momentum_teacher,
      final_value: teacher.final_momentum_teacher,
      trunc_extra,
    }),
    teacherTemperature: cosine({
      base_value: teacher.teacher_temp,
      final_value: teacher.teacher_temp,
      warmup_iters: teacher.warmup_teacher_temp_epochs * epoch,
      start_warmup_value: teacher.warmup_teacher_temp,
    }),
    freezeLastLayerSteps: optim.freeze_last_layer_epochs * epoch,
  });
}

interface EpochWarmup {
  readonly start: number;
  readonly peak: number;
  readonly end: number;
  readonly warmup_epochs: number;
  readonly cosine_epochs?: number;
  readonly freeze_last_layer_epochs?: number;
}

/** DINOv3's `schedules` block. */
function specOfWarmups(
  steps: number,
  epoch: number,
  blocks: Record<"lr" | "weight_decay" | "momentum" | "teacher_temp", EpochWarmup>,
  scale: (learningRate: number) => number,
): RunSpec {
  onlyKnown("schedules", blocks, ["lr", "weight_decay", "momentum", "teacher_temp"]);
  const of = (c: EpochWarmup): Schedule => {
    const epochs = ["warmup_epochs", "cosine_epochs", "freeze_last_layer_epochs"];
    onlyKnown("schedule", c, ["start", "peak", "end", ...epochs]);
    return warmupCosine({
      ...c,
      warmup_iterations: epoch * c.warmup_epochs,
      cosine_iterations: c.cosine_epochs === undefined ? null : epoch * c.cosine_epochs,
    });
  };
  const { lr } = blocks;
  return specOfSchedules(steps, {
    learningRate: of({ ...lr, peak: scale(lr.peak), end: scale(lr.end) }),
    weightDecay: of(blocks.weight_decay),
    momentum: of(blocks.momentum),
    teacherTemperature: of(blocks.teacher_temp),
    freezeLastLayerSteps: epoch * (lr.freeze_last_layer_epochs ?? 0),
  });
}
