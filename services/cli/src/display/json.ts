/** For programs: one JSON object per line on stdout, one per committed step (`event: "step"`) and one per other event. */
import type { Io } from "../io.js";
import type { StepsTail } from "../run/steps-tail.js";
import type { Display, RunEvent } from "./display.js";
import type { Look } from "./milestones.js";

/** Updates may skip steps, so the steps come from the run's steps.jsonl, with its numbers untouched. */
export function jsonDisplay(io: Io, look: Look, steps: StepsTail): Display {
  const writeEvent = ({ kind, message, fields }: RunEvent): void =>
    io.out(`${JSON.stringify({ event: kind, message, ...fields })}\n`);
  const writeSteps = (): void => {
    // {"step":7,...} becomes {"event":"step","step":7,...}
    for (const line of steps.take()) io.out(`{"event":"step",${line.slice(1)}\n`);
  };
  return {
    update(run) {
      writeSteps();
      look(run).events.forEach(writeEvent);
    },
    event(event) {
      writeSteps();
      writeEvent(event);
    },
    close: writeSteps,
  };
}
