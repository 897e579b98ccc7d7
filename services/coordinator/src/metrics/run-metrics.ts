/** The run as Prometheus metrics: read from the state when somebody scrapes, so that no code path can forget to count. */
import { collapseKinds, type Monitor, ranksOfCut, sizeOf, stepParts } from "@paddock/contract";
import type { Registry } from "@paddock/service-kit";
import { Counter, Gauge } from "prom-client";
import { imagesPerSecond } from "../api/view.js";
import { paceOfWorker } from "../run/balance.js";
import type { RunState, WorkerState } from "../run/state.js";
import { guardMetrics } from "./guard-metrics.js";

export interface RunMetrics {
  /** Sets every metric to what the state says. */
  refresh(state: RunState, redisUsedMemoryBytes: number | undefined): void;
}

/** Registers the metrics. Names carry their unit; every one has a HELP text. */
export function createRunMetrics(registry: Registry): RunMetrics {
  const sets = [
    ...progressMetrics(registry),
    ...lossMetrics(registry),
    ...monitorMetrics(registry),
    ...scheduleMetrics(registry),
    ...fleetMetrics(registry),
    ...workerMetrics(registry),
  ];
  const redis = gauge(registry, "paddock_redis_used_memory_bytes", "Memory that Redis uses.");
  return {
    refresh(state, redisUsedMemoryBytes) {
      for (const set of sets) set(state);
      if (redisUsedMemoryBytes !== undefined) redis.set(redisUsedMemoryBytes);
    },
  };
}

type Set = (state: RunState) => void;

function progressMetrics(registry: Registry): Set[] {
  const info = gauge(registry, "paddock_run_info", "1; its labels name the run.", "run_id", "name");
  return [
    ({ durable }) => {
      info.reset();
      info.set({ run_id: durable.runId, name: durable.spec.name }, 1);
    },
    counter(
      registry,
      "paddock_steps_total",
      "Steps decided since the coordinator started.",
      (state) => state.counters.steps,
    ),
    single(registry, "paddock_step", "Committed steps of the run.", (state) => state.durable.next),
    single(
      registry,
      "paddock_steps_planned",
      "Steps that the run is to have.",
      (state) => state.durable.spec.steps,
    ),
    counter(
      registry,
      "paddock_images_total",
      "Images in committed steps since the coordinator started.",
      (state) => state.counters.images,
    ),
    single(
      registry,
      "paddock_images_per_second",
      "Images per second over the last 20 steps.",
      imagesPerSecond,
    ),
    ...guardMetrics(registry),
    optional(
      registry,
      "paddock_knn_accuracy",
      "Last k-NN accuracy of the teacher, from 0 to 1.",
      (state) => state.durable.evaluations.at(-1)?.knn,
    ),
  ];
}

function lossMetrics(registry: Registry): Set[] {
  const loss = gauge(registry, "paddock_loss", "Loss of the last step by part, in nats.", "part");
  const norm = gauge(
    registry,
    "paddock_grad_norm",
    "Norm of the last step's gradient before clipping, by submodule.",
    "submodule",
  );
  const seconds = gauge(
    registry,
    "paddock_step_seconds",
    "Wall seconds of the last step by part, of the slowest worker.",
    "part",
  );
  return [
    ({ lastStep }) => {
      if (!lastStep) return;
      loss.set({ part: "total" }, lastStep.loss);
      for (const [part, value] of Object.entries(lastStep.losses)) loss.set({ part }, value);
      for (const [submodule, value] of Object.entries(lastStep.gradNorm)) {
        norm.set({ submodule }, value);
      }
      for (const part of stepParts) seconds.set({ part }, lastStep.seconds[part]);
    },
  ];
}

/** The teacher when it was last looked at (spec.monitor). */
function monitorMetrics(registry: Registry): Set[] {
  const latest = ({ watch }: RunState): Monitor | undefined => watch.looks.at(-1)?.monitor;
  const collapse = gauge(
    registry,
    "paddock_collapse",
    "1 while the run shows this sign of collapse, else 0.",
    "kind",
  );
  return [
    optional(
      registry,
      "paddock_teacher_entropy_nats",
      "Mean entropy of the teacher's outputs for global crops.",
      (state) => latest(state)?.teacherEntropy,
    ),
    single(
      registry,
      "paddock_uniform_entropy_nats",
      "ln K for K prototypes: the entropy, and the DINO loss, of uniform outputs.",
      ({ durable }) => Math.log(durable.spec.heads.dino.prototypes),
    ),
    optional(
      registry,
      "paddock_teacher_kl_to_uniform_nats",
      "KL of the teacher's mean output to uniform; ln K when one prototype has everything.",
      (state) => latest(state)?.klToUniform,
    ),
    optional(
      registry,
      "paddock_feature_std_ratio",
      "Standard deviation of the teacher's unit features over images, times the root of their width: 0 all alike, 1 all directions alike.",
      (state) => latest(state)?.featureStd,
    ),
    optional(
      registry,
      "paddock_feature_effective_rank",
      "Effective rank of the teacher's features of one logical rank's global crops (RankMe).",
      (state) => latest(state)?.effectiveRank,
    ),
    ({ watch }) => {
      for (const kind of collapseKinds) {
        collapse.set({ kind }, watch.collapse?.kind === kind ? 1 : 0);
      }
    },
    counter(
      registry,
      "paddock_collapse_alerts_total",
      "Times that the run began to show a sign of collapse since the coordinator started.",
      (state) => state.counters.alerts,
    ),
  ];
}

function scheduleMetrics(registry: Registry): Set[] {
  return [
    optional(
      registry,
      "paddock_learning_rate",
      "Learning rate of the last step, before layer decay.",
      (state) => state.lastStep?.lr,
    ),
    optional(
      registry,
      "paddock_weight_decay",
      "Weight decay of the last step.",
      (state) => state.lastStep?.weightDecay,
    ),
    optional(
      registry,
      "paddock_momentum",
      "Momentum of the teacher in the last step.",
      (state) => state.lastStep?.momentum,
    ),
    optional(
      registry,
      "paddock_teacher_temperature",
      "Teacher temperature of the last step.",
      (state) => state.lastStep?.teacherTemp,
    ),
    single(
      registry,
      "paddock_loss_scale",
      "Factor on gradients before they are rounded to the exchange dtype.",
      (state) => state.durable.scaler.scale,
    ),
  ];
}

function fleetMetrics(registry: Registry): Set[] {
  return [
    single(
      registry,
      "paddock_workers",
      "Workers that execute the run now.",
      (state) => state.active?.members.length ?? 0,
    ),
    single(
      registry,
      "paddock_workers_connected",
      "Workers that are connected, spares included.",
      (state) => state.workers.length,
    ),
    single(
      registry,
      "paddock_generation",
      "Generation in force; grows with every change of members.",
      (state) => state.durable.generation,
    ),
    counter(
      registry,
      "paddock_exchange_bytes_total",
      "Bytes that workers sent to each other since the coordinator started.",
      (state) => state.counters.exchangeBytes,
    ),
    counter(
      registry,
      "paddock_stale_messages_total",
      "Messages of another generation or step that were ignored.",
      (state) => state.counters.staleMessages,
    ),
    counter(
      registry,
      "paddock_bad_images_total",
      "Images replaced because they could not be decoded.",
      (state) => state.counters.badImages,
    ),
    counter(
      registry,
      "paddock_checkpoint_failures_total",
      "Checkpoints that could not be written.",
      (state) => state.counters.failedCheckpoints,
    ),
    single(
      registry,
      "paddock_checkpoint_durability_lag_steps",
      "Committed steps that no durable checkpoint holds yet.",
      ({ durable }) => durable.next - (durable.checkpoints.at(-1)?.step ?? durable.start.step),
    ),
    optional(
      registry,
      "paddock_checkpoint_step",
      "Committed steps that the last durable checkpoint holds.",
      (state) => state.durable.checkpoints.at(-1)?.step,
    ),
    single(
      registry,
      "paddock_checkpoint_seconds",
      "Seconds from the decision to durability, of the last checkpoint.",
      (state) => state.checkpointSeconds,
    ),
  ];
}

function workerMetrics(registry: Registry): Set[] {
  return [
    perWorker(
      registry,
      "paddock_state_bytes",
      "Persistent training state of a worker: 16 bytes per parameter of its shards.",
      (worker) => worker.stateBytes,
    ),
    perWorker(
      registry,
      "paddock_peak_gathered_bytes",
      "Gathered units of a worker at the peak of its last step.",
      (worker) => worker.peakGatheredBytes,
    ),
    perWorker(
      registry,
      "paddock_event_loop_delay_p99_seconds",
      "99th percentile of the event-loop delay of a worker's main thread in its last step.",
      (worker) => worker.eventLoopP99Ms / 1000,
    ),
    perWorker(
      registry,
      "paddock_worker_ranks",
      "Logical ranks that a worker executes.",
      (_, ranks) => ranks,
    ),
    perWorker(
      registry,
      "paddock_worker_seconds_per_rank",
      "Seconds of computing per logical rank of a worker, the median of its last steps; 0 before it is measured.",
      (worker) => paceOfWorker(worker) ?? 0,
    ),
    deviceMemory(registry),
  ];
}

/** One series per worker and kind; none for workers without a device of its own memory. */
function deviceMemory(registry: Registry): Set {
  const name = "paddock_device_memory_bytes";
  const help =
    "Device memory of a worker: allocated (held by tensors), peak (held at most) and reserved by the caching allocator.";
  const metric = gauge(registry, name, help, "worker", "kind");
  return ({ workers, active }) => {
    metric.reset();
    for (const [index, id] of (active?.members ?? []).entries()) {
      const worker = workers.find((known) => known.id === id);
      if (!worker?.deviceReservedBytes) continue;
      const labels = (kind: string) => ({ worker: String(index), kind });
      metric.set(labels("allocated"), worker.deviceAllocatedBytes);
      metric.set(labels("peak"), worker.devicePeakBytes);
      metric.set(labels("reserved"), worker.deviceReservedBytes);
    }
  };
}

function gauge(registry: Registry, name: string, help: string, ...labelNames: string[]): Gauge {
  return new Gauge({ name, help, labelNames, registers: [registry] });
}

function single(
  registry: Registry,
  name: string,
  help: string,
  read: (state: RunState) => number,
): Set {
  const metric = gauge(registry, name, help);
  return (state) => metric.set(read(state));
}

/** Has no value until there is one: a made-up 0 would be plotted. */
function optional(
  registry: Registry,
  name: string,
  help: string,
  read: (state: RunState) => number | undefined,
): Set {
  const metric = gauge(registry, name, help);
  metric.remove();
  return (state) => {
    const value = read(state);
    if (value !== undefined) metric.set(value);
  };
}

/** The state holds the sum; the metric is set to it. */
function counter(
  registry: Registry,
  name: string,
  help: string,
  read: (state: RunState) => number,
): Set {
  const metric = new Counter({ name, help, registers: [registry] });
  return (state) => {
    metric.reset();
    metric.inc(read(state));
  };
}

function perWorker(
  registry: Registry,
  name: string,
  help: string,
  read: (worker: WorkerState, ranks: number) => number,
): Set {
  const metric = gauge(registry, name, help, "worker");
  return ({ workers, active }) => {
    metric.reset();
    if (!active) return;
    for (const [index, id] of active.members.entries()) {
      const worker = workers.find((known) => known.id === id);
      const ranks = sizeOf(ranksOfCut(active.cuts, index));
      if (worker) metric.set({ worker: String(index) }, read(worker, ranks));
    }
  };
}
