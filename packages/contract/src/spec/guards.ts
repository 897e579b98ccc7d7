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
  /** Steps in a row skipped for values that are not finite, overflows not counted, after which the run goes back to the last checkpoint before them; 0: never. */
  rollbackAfter: z.number().int().nonnegative().default(0),
  /** After going back, the data of those steps is left out: later steps use what follows it. false: it is tried again. */
  skipWindow: z.boolean().default(true),
  /** Times that a run goes back; what would make it go back once more makes it fail (spikes: is only reported). */
  maxRollbacks: z.number().int().nonnegative().default(3),
  /** Sudden rises of the loss. null: not looked for. */
  spike: z
    .strictObject({
      /** A loss is above when it exceeds the median of the window by so many deviations (1.4826 MAD, at least 1 % of the median). */
      factor: z.number().positive().default(10),
      /** Committed losses before the step that it is compared with; nothing is judged before there are so many. */
      window: z.number().int().min(8).default(64),
      /** Losses in a row above that make a spike: one alone may be a hard batch. */
      steps: z.number().int().positive().default(3),
      /** rollback: to the last checkpoint before the spike, and on without its data (if skipWindow). warn, stop: as they say. */
      action: z.enum(["warn", "rollback", "stop"]).default("warn"),
      /** rollback: steps before the spike whose data is left out with it. The cause lies before the first high loss. */
      skipBefore: z.number().int().nonnegative().default(1),
    })
    .nullable()
    .default(null),
});
export type GuardsSpec = z.infer<typeof GuardsSpec>;

/** Rules between these fields: whether each holds, and what to change. */
export function guardRules(guards: GuardsSpec): [boolean, string][] {
  const { nonFinite, maxSkipsInRow, rollbackAfter, maxRollbacks, spike } = guards;
  return [
    [
      rollbackAfter <= maxSkipsInRow,
      `guards.rollbackAfter: expected at most guards.maxSkipsInRow = ${maxSkipsInRow}, where the run fails, received ${rollbackAfter}`,
    ],
    [
      rollbackAfter === 0 || nonFinite === "skip",
      `guards.rollbackAfter: with guards.nonFinite "${nonFinite}" no step is skipped; set it to 0, or nonFinite to skip`,
    ],
    [
      rollbackAfter === 0 || maxRollbacks > 0,
      "guards.maxRollbacks: 0 forbids what guards.rollbackAfter asks for; raise it, or set rollbackAfter to 0",
    ],
    [
      spike === null || spike.action !== "rollback" || maxRollbacks > 0,
      'guards.maxRollbacks: 0 forbids guards.spike.action "rollback"; raise it, or set the action to warn or stop',
    ],
    [
      spike === null || 2 * spike.steps <= spike.window,
      `guards.spike.window: expected at least twice guards.spike.steps = ${spike?.steps}, so that a spike does not move its own median, received ${spike?.window}`,
    ],
  ];
}
