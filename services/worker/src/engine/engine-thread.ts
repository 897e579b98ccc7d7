/** The worker_thread in which all tensor math runs, so that the main thread's timers and sockets stay on time. */
import { parentPort } from "node:worker_threads";
import {
  invariant,
  layoutOf,
  PaddockError,
  type RunSpec,
  shardOf,
  type Unit,
} from "@paddock/contract";
import { type Engine, openEngine } from "@paddock/engine";
import {
  features,
  type Gathered,
  hostVectors,
  initialCenters,
  initialUnit,
  knn,
  type Precision,
  referenceFlatMath,
  type VectorSpace,
} from "@paddock/model";
import { type ResidentState, residentState } from "../segment/resident-state.js";
import { StepRunner } from "../segment/step.js";
import type { EngineCalls, HostCalls, ShardState } from "./calls.js";
import { createRpc } from "./rpc.js";

invariant(parentPort, "engine-thread.js runs as a worker_thread");

let engine: Engine | undefined;
let run: Run | undefined;

/** The generation that was entered. What kind of vectors it computes on is nobody's business here. */
interface Run {
  readonly spec: RunSpec;
  readonly runner: Pick<
    StepRunner<unknown>,
    "layout" | "centers" | "setStep" | "compute" | "update" | "skip" | "rest" | "encodeWeights"
  >;
  gatherTeacher(unit: string): Promise<Gathered>;
  /** Of the own shards, and of those that are kept for another worker. */
  readonly residents: readonly Pick<ResidentState<unknown>, "sync" | "close">[];
}

function entered(): Run {
  if (!run) throw new PaddockError("internal", "the engine thread has not entered a generation");
  return run;
}

const calls: EngineCalls = {
  async open({ device, ...options }) {
    engine = await openEngine(device === undefined ? options : { ...options, device });
    return { name: engine.name, device: engine.device, threads: engine.threads, why: engine.why };
  },

  async enter(generation) {
    invariant(engine, "open comes before enter");
    const { spec, membership, state, shadow, initialise } = generation;
    requirePrecision(engine, spec.engine.precision);
    engine.allowTf32(spec.engine.precision !== "fp32");
    const { workers } = membership;
    for (const unit of layoutOf(spec).units) {
      if (!initialise.includes(unit.name)) continue;
      const values = initialUnit(spec, unit);
      draw(spec, unit, values, { worker: membership.worker, workers, state });
      if (shadow) draw(spec, unit, values, { ...shadow, workers });
    }
    for (const resident of run?.residents ?? []) resident.close();
    run = engine.vectors
      ? runOn(engine.vectors, generation)
      : runOn(hostVectors(engine.flat ?? referenceFlatMath, engine.readInto), generation);
  },

  async compute({ step, scale, batches }) {
    const report = await entered().runner.compute(step, scale, batches);
    const memory = engine?.deviceMemory();
    return {
      ...report,
      deviceAllocatedBytes: memory?.allocatedBytes ?? 0,
      devicePeakBytes: memory?.peakAllocatedBytes ?? 0,
      deviceReservedBytes: memory?.reservedBytes ?? 0,
    };
  },

  async update({ step, gradNorm }) {
    const start = performance.now();
    entered().runner.update(step, gradNorm);
    return (performance.now() - start) / 1000;
  },

  async skip({ step }) {
    entered().runner.skip(step);
  },

  async syncState() {
    for (const resident of entered().residents) resident.sync();
  },

  async rest() {
    if (!run) return;
    run.runner.rest();
    for (const resident of run.residents) resident.sync();
  },

  async encodeWeights() {
    return entered().runner.encodeWeights();
  },

  async centers() {
    return entered().runner.centers;
  },

  async features({ step, images, count }) {
    const { cls, patches } = await teacherFeatures(step, images, count, false);
    patches.dispose();
    const values = (await cls.data()) as Float32Array;
    cls.dispose();
    return values;
  },

  async knn(split) {
    const { k, temperature } = entered().spec.evaluation;
    const dimension = split.bank.length / split.bankLabels.length;
    return await knn({ ...split, dimension, k, temperature });
  },

  async inspect({ step, images, count }) {
    const { cls, patches, attention } = await teacherFeatures(step, images, count, true);
    invariant(attention, "attention was asked for");
    const result = {
      patches: (await patches.data()) as Float32Array,
      attention: (await attention.data()) as Float32Array,
      heads: attention.shape[1] as number,
      positions: patches.shape[1] as number,
    };
    for (const tensor of [cls, patches, attention]) tensor.dispose();
    return result;
  },
};

function runOn<V>(vectors: VectorSpace<V>, generation: Parameters<EngineCalls["enter"]>[0]): Run {
  const { spec, membership, centers, shadow } = generation;
  const resident = residentState(vectors, generation.state);
  const shadowResident = shadow && residentState(vectors, shadow.state);
  const runner = new StepRunner({
    spec,
    membership,
    state: resident.state,
    shadow: shadow && shadowResident && { worker: shadow.worker, state: shadowResident.state },
    centers: centers ?? initialCenters(spec),
    vectors,
    host: {
      fetchUnit: (step, request) => host.call("fetchUnit", { step, ...request }),
      allToAll: (step, key, outgoing, expectedBytes) =>
        host.call("allToAll", { step, key, outgoing, expectedBytes }),
      phase: (step, phase) => void host.call("phase", { step, phase }),
    },
    now: () => performance.now(),
  });
  const gatherTeacher = (unit: string) => runner.gatherer.gather("teacher", unit, "alone");
  const residents = shadowResident ? [resident, shadowResident] : [resident];
  return { spec, runner, gatherTeacher, residents };
}

/** A unit's values from the seed, as far as they belong to the shards. */
function draw(
  spec: RunSpec,
  unit: Unit,
  values: Float32Array,
  shards: { readonly worker: number; readonly workers: number; readonly state: ShardState },
): void {
  const { start, end } = shardOf(unit.elements, shards.worker, shards.workers);
  const own = values.subarray(start, end);
  const { student, teacher, frozen } = shards.state;
  student[unit.name]?.set(own);
  teacher[unit.name]?.set(own);
  const isCopied = spec.loss.gram?.teacher === "frozen" && spec.loss.gram.checkpoint === null;
  if (isCopied) frozen[unit.name]?.set(own);
}

function requirePrecision({ name, precisions }: Engine, precision: Precision): void {
  if (precisions.includes(precision)) return;
  throw new PaddockError(
    "engine-unavailable",
    `engine.precision: expected one of ${precisions.join(", ")} on the engine ${name}, received ${precision}; use the torch engine or engine.precision=fp32`,
  );
}

function teacherFeatures(
  step: number,
  images: Float32Array,
  count: number,
  withAttention: boolean,
) {
  const { runner, spec, gatherTeacher } = entered();
  runner.setStep(step);
  return features({
    spec,
    layout: runner.layout,
    gather: gatherTeacher,
    images,
    count,
    size: spec.crops.global.size,
    withAttention,
  });
}

const host = createRpc<HostCalls, EngineCalls>(parentPort, calls);
