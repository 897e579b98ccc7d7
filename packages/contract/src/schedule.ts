/** Schedules as pure functions of the step (dinov2/utils/utils.py CosineScheduler, per iteration). */
import type { RunSpec } from "./spec/run.js";

/** What a step trains with. */
export interface StepScalars {
  readonly learningRate: number;
  /** 0 while the last layer is frozen, else the learning rate. */
  readonly lastLayerLearningRate: number;
  readonly weightDecay: number;
  readonly momentum: number;
  readonly teacherTemperature: number;
}

interface CosineSchedule {
  readonly start: number;
  readonly peak: number;
  readonly end: number;
  readonly warmupSteps: number;
}

/**
 * linspace(start, peak, warmupSteps) including both ends, then end + (peak - end)(1 + cos(pi i / n)) / 2 for i in [0, n);
 * `end` after the last step. `end` itself is never reached inside the schedule.
 */
export function cosineSchedule(s: CosineSchedule, step: number, steps: number): number {
  if (step < s.warmupSteps) {
    return s.warmupSteps === 1
      ? s.start
      : s.start + ((s.peak - s.start) * step) / (s.warmupSteps - 1);
  }
  if (step >= steps) return s.end;
  const n = steps - s.warmupSteps;
  return s.end + 0.5 * (s.peak - s.end) * (1 + Math.cos((Math.PI * (step - s.warmupSteps)) / n));
}

export function scalarsAt(spec: RunSpec, step: number): StepScalars {
  const { schedules, steps } = spec;
  const t = schedules.teacherTemperature;
  const learningRate = cosineSchedule(schedules.learningRate, step, steps);
  return {
    learningRate,
    lastLayerLearningRate: step < schedules.freezeLastLayerSteps ? 0 : learningRate,
    weightDecay: cosineSchedule(schedules.weightDecay, step, steps),
    momentum: cosineSchedule(schedules.momentum, step, steps),
    // The official code builds it as a warm-up whose cosine part is constant.
    teacherTemperature: cosineSchedule({ ...t, end: t.peak }, step, steps),
  };
}
