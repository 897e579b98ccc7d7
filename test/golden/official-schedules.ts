/** The schedules of the official configurations as those of a run spec. */
import {
  parseRunSpec,
  type RunSpec,
  type RunSpecInput,
  type Schedule,
  scalarsAt,
} from "@paddock/contract";

/** Arguments of CosineScheduler (DINOv2, DINOv3), and with epochs turned into steps of DINO's cosine_scheduler. */
export interface OfficialCosine {
  readonly base_value: number;
  readonly final_value: number;
  readonly warmup_iters?: number;
  readonly start_warmup_value?: number;
  readonly freeze_iters?: number;
  readonly trunc_extra?: number;
}

/** Arguments of DINOv3's linear_warmup_cosine_decay. */
export interface OfficialWarmupCosine {
  readonly start: number;
  readonly peak: number;
  readonly end: number;
  readonly warmup_iterations: number;
  readonly cosine_iterations?: number | null;
}

const plain = { freezeSteps: 0, truncExtra: 0, cosineSteps: null, stepsPerValue: 1 };

export function cosine(o: OfficialCosine): Schedule {
  return {
    ...plain,
    kind: "cosine",
    start: o.start_warmup_value ?? 0,
    peak: o.base_value,
    end: o.final_value,
    warmupSteps: o.warmup_iters ?? 0,
    freezeSteps: o.freeze_iters ?? 0,
    truncExtra: o.trunc_extra ?? 0,
  };
}

export function warmupCosine(o: OfficialWarmupCosine): Schedule {
  return {
    ...plain,
    kind: "warmup-cosine",
    start: o.start,
    peak: o.peak,
    end: o.end,
    warmupSteps: o.warmup_iterations,
    cosineSteps: o.cosine_iterations ?? null,
  };
}

/** A spec of nothing but a length and schedules. */
export function specOfSchedules(
  steps: number,
  schedules: NonNullable<RunSpecInput["schedules"]>,
): RunSpec {
  return parseRunSpec({ steps, batchPerRank: 2, data: { path: "unused" }, schedules });
}

/** What the official code calls the scalars of a step. */
const scalarOf = {
  lr: "learningRate",
  wd: "weightDecay",
  momentum: "momentum",
  teacher_temp: "teacherTemperature",
  last_layer_lr: "lastLayerLearningRate",
} as const;

/** An official name of a schedule. */
export type OfficialScalar = keyof typeof scalarOf;
export const officialScalars = Object.keys(scalarOf) as OfficialScalar[];

/** The values of a schedule at the first `count` steps. */
export function valuesOf(spec: RunSpec, name: OfficialScalar, count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, step) => scalarsAt(spec, step)[scalarOf[name]]);
}
