/** The worker_thread in which all tensor math runs, so that the main thread's timers and sockets stay on time. */
import { parentPort } from "node:worker_threads";
import { invariant, layoutOf, PaddockError, shardOf } from "@paddock/contract";
import { type Engine, openEngine } from "@paddock/engine";
import {
  features,
  initialCenters,
  initialUnit,
  knn,
  type Precision,
  referenceFlatMath,
} from "@paddock/model";
import { StepRunner } from "../segment/step.js";
import type { EngineCalls, HostCalls } from "./calls.js";
import { createRpc } from "./rpc.js";

invariant(parentPort, "engine-thread.js runs as a worker_thread");

let engine: Engine | undefined;
let runner: StepRunner | undefined;
let spec: Parameters<EngineCalls["enter"]>[0]["spec"] | undefined;

function entered(): { runner: StepRunner; spec: NonNullable<typeof spec> } {
  if (!runner || !spec)
    throw new PaddockError("internal", "the engine thread has not entered a generation");
  return { runner, spec };
}

const calls: EngineCalls = {
  async open({ name, threads, device }) {
    engine = await openEngine({ name, threads, ...(device === undefined ? {} : { device }) });
    return { name: engine.name, device: engine.device, threads: engine.threads, why: engine.why };
  },

  async enter({ spec: runSpec, membership, state, initialise, centers }) {
    invariant(engine, "open comes before enter");
    requirePrecision(engine, runSpec.engine.precision);
    engine.allowTf32(runSpec.engine.precision !== "fp32");
    spec = runSpec;
    if (initialise) {
      for (const unit of layoutOf(runSpec).units) {
        const { start, end } = shardOf(unit.elements, membership.worker, membership.workers);
        const values = initialUnit(runSpec, unit).subarray(start, end);
        state.student[unit.name]?.set(values);
        state.teacher[unit.name]?.set(values);
      }
    }
    runner = new StepRunner({
      spec: runSpec,
      membership,
      state,
      centers: centers ?? initialCenters(runSpec),
      flat: engine.flat ?? referenceFlatMath,
      host: {
        fetchUnit: (step, request) => host.call("fetchUnit", { step, ...request }),
        allToAll: (step, key, outgoing, expectedBytes) =>
          host.call("allToAll", { step, key, outgoing, expectedBytes }),
        phase: (step, phase) => void host.call("phase", { step, phase }),
      },
      now: () => performance.now(),
    });
  },

  compute: ({ step, scale, batches }) => entered().runner.compute(step, scale, batches),

  async update({ step, gradNorm }) {
    const start = performance.now();
    entered().runner.update(step, gradNorm);
    return (performance.now() - start) / 1000;
  },

  async skip({ step }) {
    entered().runner.skip(step);
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
  const { runner: active, spec: runSpec } = entered();
  active.setStep(step);
  return features({
    spec: runSpec,
    layout: active.layout,
    gather: (unit) => active.gatherer.gather("teacher", unit, "alone"),
    images,
    count,
    size: runSpec.crops.global.size,
    withAttention,
  });
}

const host = createRpc<HostCalls, EngineCalls>(parentPort, calls);
