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
  return s.end + 0.5 * (s.peak - s.end) * (1 + Math.cos((Math.PI * (warm - s.warmupSteps)) / n));
}

/** linspace(start, peak, warmupSteps) without its end, a cosine from peak to end including both, then `end`. */
function warmupCosine(s: Schedule, step: number, steps: number): number {
  if (step < s.warmupSteps) return s.start + ((s.peak - s.start) * step) / s.warmupSteps;
  const n = s.cosineSteps ?? steps - s.warmupSteps;
  const at = step - s.warmupSteps;
  if (at >= n - 1) return s.end;
  return s.end + 0.5 * (s.peak - s.end) * (1 + Math.cos((Math.PI * at) / (n - 1)));
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
