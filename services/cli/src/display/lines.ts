/** For logs and pipes: plain lines, at most one per 5 seconds for steps, and one for every event. */
import type { StepRecord } from "@paddock/contract";
import { type Run, RunPhase } from "@paddock/proto";
import type { Io } from "../io.js";
import type { Display } from "./display.js";
import { duration, loss, rate, small } from "./format.js";
import type { Look } from "./milestones.js";

const quietMs = 5_000;

/** @param now milliseconds of a monotonic clock */
export function linesDisplay(
  io: Io,
  look: Look,
  now: () => number = () => performance.now(),
): Display {
  let lastMs = Number.NEGATIVE_INFINITY;
  let waiting = false;
  return {
    update(run) {
      const { step, events } = look(run);
      for (const { message } of events) io.out(`${message}\n`);
      if (run.phase === RunPhase.RUN_PHASE_WAITING && !waiting) {
        io.out(`waiting for ${run.waitingFor}\n`);
      }
      waiting = run.phase === RunPhase.RUN_PHASE_WAITING;
      const isLast = run.step === run.steps;
      if (!step || (!isLast && now() - lastMs < quietMs)) return;
      lastMs = now();
      io.out(`${stepLine(run, step)}\n`);
    },
    event: ({ message }) => io.out(`${message}\n`),
    close: () => undefined,
  };
}

function stepLine(run: Run, record: StepRecord): string {
  return [
    `step ${run.step}/${run.steps}`,
    `loss ${loss(record.loss)}`,
    `lr ${small(record.lr)}`,
    `${rate(run.imagesPerSecond)} images/s`,
    `ETA ${duration(run.etaSeconds)}`,
    `${record.workers} workers`,
  ].join("  ");
}
