/** What a run does about values that are not finite and about spikes of its loss. Collapse: see `monitor`. */
import { z } from "zod";

export const GuardsSpec = z.strictObject({
  /**
   * A loss or gradient that is not finite never reaches the state. skip: leave the update out and go on. stop: end the run at the first one, with
   * an error that names it. An overflow of fp16 at a loss scale above 1 is no such case: it halves the scale and is skipped.
   */
  nonFinite: z.enum(["skip", "stop"]).default("skip"),
  /** Skipped steps in a row, overflows included, after which the run fails. */
  maxSkipsInRow: z.number().int().positive().default(20),
  /**
   * Steps in a row skipped for values that are not finite, overflows not counted, after which the run goes back to a checkpoint before them; 0: never.
   * Skipped steps leave the weights as they are: when three batches in a row fail, the weights are to blame, and skipping more helps no further.
   */
  rollbackAfter: z.number().int().nonnegative().default(3),
  /**
   * After going back, the data of the steps from `skipBefore` before the first bad one to the last one is left out: later steps use what follows it.
   * false: it is tried again, which helps when a device or memory was at fault and nothing else.
   */
  skipWindow: z.boolean().default(true),
  /**
   * Steps before the first bad one whose data is left out with it: the updates that led there. As PaLM did (Chowdhery et al. 2022, section 5.1), which
   * left out 200 to 500 batches about a spike; 8, because a run here may be short. Checkpoints that such a step back needs are kept beyond `checkpoint.keep`.
   */
  skipBefore: z.number().int().nonnegative().default(8),
  /** Times that a run goes back; what would make it go back once more makes it fail (spikes: is only reported). */
  maxRollbacks: z.number().int().nonnegative().default(3),
  /** Sudden rises of the loss. null: not looked for. */
  spike: z
    .strictObject({
      /**
       * A loss is above when it exceeds the median of the window by so many deviations: 1.4826 times the median absolute deviation, which is the
       * standard deviation of normally distributed values (Hampel 1974), at least 1 % of the median. 3 is usual for outliers; 10 leaves hard batches alone.
       */
      factor: z.number().positive().default(10),
      /** Committed losses before the step that it is compared with; nothing is judged before there are so many. */
      window: z.number().int().min(8).default(64),
      /** Losses in a row above that make a spike: one alone may be a hard batch. */
      steps: z.number().int().positive().default(3),
      /** rollback: to a checkpoint before the spike, and on without its data (see skipWindow, skipBefore). warn, stop: as they say. */
      action: z.enum(["warn", "rollback", "stop"]).default("warn"),
    })
    .nullable()
    .default(null),
});
export type GuardsSpec = z.infer<typeof GuardsSpec>;

/** Rules between these fields: whether each holds, and what to change. */
export function guardRules(guards: GuardsSpec): [boolean, string][] {
  const { nonFinite, maxSkipsInRow, rollbackAfter, spike } = guards;
  return [
    [
      nonFinite === "stop" || rollbackAfter <= maxSkipsInRow,
      `guards.rollbackAfter: expected at most guards.maxSkipsInRow = ${maxSkipsInRow}, where the run fails, received ${rollbackAfter}`,
    ],
    [
      spike === null || 2 * spike.steps <= spike.window,
      `guards.spike.window: expected at least twice guards.spike.steps = ${spike?.steps}, so that a spike does not move its own median, received ${spike?.window}`,
    ],
  ];
}
