/**
 * Many whole training steps as a worker makes them, on `torch`, in this process: batches from the data threads, gather, teacher,
 * student, losses, backward, reduction and update through the worker's StepRunner. What is missing of a worker is its connections;
 * fleet.ts has those.
 */
import { layoutOf, type RunSpec, stepNorms } from "@paddock/contract";
import { startBatchPool } from "@paddock/data";
import { type Engine, openEngine } from "@paddock/engine";
import { hostVectors, initialCenters, initialUnit, referenceFlatMath } from "@paddock/model";
import { allocateState, limitHeapGrowth, type StepHost, StepRunner } from "@paddock/worker";
import * as tf from "@tensorflow/tfjs-core";
import { residentMiB } from "../bench/harness/usage.js";

/** What a process holds between two steps. */
export interface Held {
  readonly step: number;
  /** Of TF.js, and of the addon: they agree unless one of them leaks. */
  readonly tensors: number;
  readonly nativeTensors: number;
  readonly nativeBytes: number;
  readonly residentMiB: number;
}

/** Bytes of a tensor that is kept on purpose: a quarter of a MiB. */
const leakBytes = 262_144;

/**
 * Trains for `steps` steps with one worker; `observe` is called after each. The state must stay finite.
 * @param leak keeps one tensor of `leakBytes` per step: to see that it is noticed
 */
export async function trainSteps(
  spec: RunSpec,
  steps: number,
  observe: (held: Held) => Promise<void>,
  leak = false,
): Promise<void> {
  limitHeapGrowth();
  const engine = await openEngine({ name: "torch", threads: 1 });
  const runner = startRunner(spec, engine);
  const ranks = Array.from({ length: spec.logicalRanks }, (_, rank) => rank);
  const pool = await startBatchPool({ spec, threads: spec.data.threads });
  try {
    for (let step = 0; step < steps; step++) {
      const batches = await pool.request(step, ranks);
      const report = await runner.compute(step, spec.exchange.initialScale, batches);
      pool.release(batches);
      if (!report.finite)
        throw new Error(`step ${step}: ${report.offenders[0]?.tensor} is not finite`);
      runner.update(step, stepNorms(layoutOf(spec).normGroups, report.normRoots).all);
      if (leak) tf.keep(tf.fill([leakBytes / 4], step));
      const { tensors, bytes } = engine.memory();
      await observe({
        step,
        tensors: tf.memory().numTensors,
        nativeTensors: tensors,
        nativeBytes: bytes,
        residentMiB: residentMiB(),
      });
      // A worker waits for its coordinator here: others get their turn.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    await pool.close();
    engine.close();
  }
}

function startRunner(spec: RunSpec, engine: Engine): StepRunner<Float32Array> {
  const membership = { generation: 1, worker: 0, workers: 1 };
  const layout = layoutOf(spec);
  const state = allocateState(spec, membership);
  for (const unit of layout.units) {
    state.student[unit.name]?.set(initialUnit(spec, unit));
    state.teacher[unit.name]?.set(initialUnit(spec, unit));
  }
  return new StepRunner({
    spec,
    membership,
    state,
    shadow: null,
    centers: initialCenters(spec),
    vectors: hostVectors(engine.flat ?? referenceFlatMath),
    // Alone: it has no peers to talk to.
    host: { phase: () => undefined } as unknown as StepHost,
    now: () => performance.now(),
  });
}
