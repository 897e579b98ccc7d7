/** What guards did, as metrics. */
import type { Registry } from "@paddock/service-kit";
import { Counter, Gauge } from "prom-client";
import type { Counters, RunState } from "../run/state.js";

/** Registers them; what sets them to what a state says. */
export function guardMetrics(registry: Registry): ((state: RunState) => void)[] {
  const registers = [registry];
  const skipped = new Counter({
    name: "paddock_skipped_steps_total",
    help: "Steps whose update was skipped: overflow (of fp16, normal), loss or gradient (not finite).",
    labelNames: ["reason"],
    registers,
  });
  // One series at most, whose labels change only when a step was not finite.
  const bad = new Gauge({
    name: "paddock_non_finite_step",
    help: "The last step whose loss or gradient was not finite; its labels say which tensor was so first, of which logical rank (empty: of all together), on which worker, with which samples.",
    labelNames: ["reason", "tensor", "rank", "worker", "samples"],
    registers,
  });
  const leftOut = new Gauge({
    name: "paddock_left_out_steps",
    help: "Steps' worth of data that the run leaves out.",
    registers,
  });
  const counting = (name: string, help: string, key: keyof Counters) => {
    const counter = new Counter({ name, help, registers });
    return ({ counters }: RunState) => {
      counter.reset();
      counter.inc(counters[key]);
    };
  };
  return [
    ({ counters }) => {
      skipped.reset();
      skipped.inc({ reason: "overflow" }, counters.skippedOverflow);
      skipped.inc({ reason: "loss" }, counters.skippedLoss);
      skipped.inc({ reason: "gradient" }, counters.skippedGradient);
    },
    counting(
      "paddock_rollbacks_total",
      "Times that guards made the run go back to a checkpoint since the coordinator started.",
      "rollbacks",
    ),
    counting(
      "paddock_loss_spikes_total",
      "Spikes of the loss since the coordinator started (spec.guards.spike).",
      "spikes",
    ),
    ({ durable }) => {
      leftOut.set(durable.leftOut.reduce((sum, { from, to }) => sum + to - from, 0));
      bad.reset();
      if (!durable.lastBad) return;
      const { step, offender } = durable.lastBad;
      const { reason, tensor, rank, workerName: worker, samples } = offender;
      bad.set({ reason, tensor, rank: rank ?? "", worker, samples: samples.join(",") }, step);
    },
  ];
}
