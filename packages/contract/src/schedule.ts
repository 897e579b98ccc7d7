/** Schedules as pure functions of the step (CosineScheduler of dinov2 and dinov3, dinov3/train/cosine_lr_scheduler.py, DINO's utils.py). */
import type { RunSpec } from "./spec/run.js";
import type { Schedule } from "./spec/train.js";

/** What a step trains with. */
export interface StepScalars {
  readonly learningRate: number;
  /** 0 while the last layer is frozen, else the learning rate. */
  readonly lastLayerLearningRate: number;
  readonly weightDecay: number;
  readonly momentum: number;
  readonly teacherTemperature: number;
  /** Factor on the DINO loss of local crops. */
  readonly localWeight: number;
  readonly gramWeight: number;
}

/** The value of a schedule at `step` of a run of `steps` steps. */
export function scheduleAt(s: Schedule, step: number, steps: number): number {
  const at = Math.floor(step / s.stepsPerValue);
  const total = Math.ceil(steps / s.stepsPerValue);
  return s.kind === "cosine" ? cosine(s, at, total) : warmupCosine(s, at, total);
}

/**
 * 0 for freezeSteps, linspace(start, peak, warmupSteps) including both ends, then end + (peak - end)(1 + cos(pi i / n)) / 2 for i in
 * [0, n); `end` after the last step. `end` itself is never reached inside the schedule.
 */
function cosine(s: Schedule, step: number, steps: number): number {
  if (step < s.freezeSteps) return 0;
  const warm = step - s.freezeSteps;
  if (warm < s.warmupSteps) {
    return s.warmupSteps === 1
      ? s.start
      : s.start + ((s.peak - s.start) * warm) / (s.warmupSteps - 1);
  }
  if (step >= steps) return s.end;
  const n = steps - s.freezeSteps - s.warmupSteps;
  const at = warm - s.warmupSteps;
  if (s.truncExtra > 0) return s.end + (s.peak - s.end) * truncatedCosine(s.truncExtra, at, n);
  return s.end + 0.5 * (s.peak - s.end) * (1 + Math.cos((Math.PI * at) / n));
}

/**
 * From 1 to 0, both reached, in n steps: the first n of trunc((1 + extra) n) steps of half a period, stretched to end at 0
 * (DINOv3's schedule_trunc_extra).
 */
function truncatedCosine(extra: number, at: number, n: number): number {
  const last = Math.trunc((1 + extra) * n) - 1;
  // The official code divides 0 by 0 for a single step.
  if (n === 1) return 1;
  const height = (i: number): number => (Math.cos((Math.PI * i) / last) + 1) / 2;
  const lowest = height(n - 1);
  return (height(at) - lowest) / (1 - lowest);
}

/** linspace(start, peak, warmupSteps) without its end, a cosine from peak to end including both, then `end`. */
function warmupCosine(s: Schedule, step: number, steps: number): number {
  if (step < s.warmupSteps) return s.start + ((s.peak - s.start) * step) / s.warmupSteps;
  const n = s.cosineSteps ?? steps - s.warmupSteps;
  const at = step - s.warmupSteps;
  if (at >= n) return s.end;
  if (at === 0) return s.peak;
  return s.end + 0.5 * (s.peak - s.end) * (1 + Math.cos((Math.PI * at) / (n - 1)));
}

/** How the official configurations relate a learning rate to the images of a step. none: not at all. */
export type LearningRateRule = "none" | "linear_wrt_256" | "sqrt_wrt_1024";

/**
 * The learning rate for a global batch: lr * batch / 256 (DINO has no other rule), or lr * sqrt(batch / 1024), which DINOv3 quadruples
 * (dinov2/utils/config.py, dinov3/train/train.py). DINOv3's `schedules` scale `peak` and `end` alike, all others `peak` alone.
 */
export function scaledLearningRate(
  rule: LearningRateRule,
  version: 1 | 2 | 3,
  learningRate: number,
  globalBatch: number,
): number {
  switch (rule) {
    case "none":
      return learningRate;
    case "linear_wrt_256":
      return learningRate * (globalBatch / 256);
    case "sqrt_wrt_1024":
      return learningRate * (version === 3 ? 4 : 1) * Math.sqrt(globalBatch / 1024);
  }
}

export function scalarsAt(spec: RunSpec, step: number): StepScalars {
  const { schedules, steps } = spec;
  const at = (s: Schedule): number => scheduleAt(s, step, steps);
  const t = schedules.teacherTemperature;
  const learningRate = at(schedules.learningRate);
  return {
    learningRate,
    lastLayerLearningRate: step < schedules.freezeLastLayerSteps ? 0 : learningRate,
    weightDecay: at(schedules.weightDecay),
    momentum: at(schedules.momentum),
    // The official code builds it as a warm-up whose cosine part is constant.
    teacherTemperature: at({ ...t, end: t.end ?? t.peak }),
    localWeight: at(schedules.localWeight),
    gramWeight: at(schedules.gramWeight),
  };
}
