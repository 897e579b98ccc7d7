/** For programs: one JSON object per line on stdout, one per committed step (`event: "step"`) and one per other event. */
import type { Io } from "../io.js";
import type { Display, RunEvent } from "./display.js";
import { milestoneWatcher } from "./milestones.js";

export function jsonDisplay(io: Io): Display {
  const look = milestoneWatcher();
  const write = (fields: object): void => io.out(`${JSON.stringify(fields)}\n`);
  const writeEvent = ({ kind, message, fields }: RunEvent): void =>
    write({ event: kind, message, ...fields });
  return {
    update(run) {
      const { step, events } = look(run);
      if (step) write({ event: "step", ...step });
      events.forEach(writeEvent);
    },
    event: writeEvent,
    close: () => undefined,
  };
}
