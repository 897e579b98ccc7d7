/** SGD, LARS and AdamW on given gradients, step after step, with a rate and a decay of their own at each. */
import {
  chunkElements,
  type Layout,
  normGroupsOf,
  type Parameter,
  type RunSpec,
  stepNorms,
} from "@paddock/contract";
import {
  type FlatMath,
  hostVectors,
  normNodes,
  referenceFlatMath,
  updateUnit,
} from "@paddock/model";
import { asParameter, type Check } from "../check.js";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import { specOfSchedules } from "../official-schedules.js";

const optimizerKinds = ["sgd", "lars", "adamw"] as const;

export const optimizers: Kind = {
  name: "optimizers",
  matches: (golden) =>
    Array.isArray(golden.config.lrs) &&
    Array.isArray(golden.config.wds) &&
    golden.names("inputs.step0.grad.").length > 0,
  run(golden, check, { flat }) {
    onlyKnown("config", golden.config, ["lrs", "wds", "shapes"]);
    for (const kind of optimizerKinds) {
      if (golden.names(`outputs.${kind}.`).length === 0) continue;
      const { optimizer, schedules } = specOfSchedules(1, {});
      const chosen = { ...optimizer, kind, clipBy: "tensor" as const, clipNorm: 0 };
      checkSteps(golden, check, { optimizer: chosen, schedules }, flat ?? referenceFlatMath);
    }
  },
};

function checkSteps(
  golden: Golden,
  check: Check,
  spec: Pick<RunSpec, "optimizer" | "schedules">,
  flat: FlatMath,
): void {
  const vectors = hostVectors(flat);
  const layout = layoutOf(golden.config.shapes, spec.optimizer);
  const [unit] = layout.units;
  if (!unit) throw new RangeError("no unit");
  const read = (prefix: string): Float32Array => {
    const values = new Float32Array(unit.elements);
    for (const { name, offset } of unit.parameters) values.set(golden.f32(prefix + name), offset);
    return values;
  };
  const zeros = (): Float32Array => new Float32Array(unit.elements);
  const state = { student: read("params."), m: zeros(), v: zeros(), teacher: zeros() };
  for (const [step, learningRate] of (golden.config.lrs as number[]).entries()) {
    const shard = { ...state, grad: read(`inputs.step${step}.grad.`) };
    const nodes = normNodes(vectors, layout, () => ({ ...shard, start: 0 }));
    updateUnit(vectors, unit, { start: 0, end: unit.elements }, shard, {
      spec,
      scalars: scalarsOf(learningRate, golden.config.wds[step]),
      step,
      norms: stepNorms(layout.normGroups, nodes).all,
    });
    for (const { name, offset, elements } of unit.parameters) {
      const actual = state.student.subarray(offset, offset + elements);
      check.tensor(`outputs.${spec.optimizer.kind}.step${step}.${name}`, actual, asParameter);
    }
  }
}

function scalarsOf(learningRate: number, weightDecay: number) {
  return {
    learningRate,
    lastLayerLearningRate: learningRate,
    weightDecay,
    momentum: 0,
    teacherTemperature: 1,
    localWeight: 1,
    gramWeight: 1,
  };
}

/** One unit of the recorded tensors. Those of one axis are not decayed. */
function layoutOf(
  shapes: Record<string, readonly number[]>,
  optimizer: RunSpec["optimizer"],
): Layout {
  const parameters: Parameter[] = [];
  let offset = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const elements = shape.reduce((product, side) => product * side, 1);
    parameters.push({
      name,
      shape,
      offset,
      elements,
      lrMultiplier: 1,
      wdMultiplier: shape.length > 1 ? 1 : 0,
      trainable: true,
      isLastLayer: false,
    });
    offset += Math.ceil(elements / chunkElements) * chunkElements;
  }
  const units = [{ name: "tensors", submodule: "backbone" as const, parameters, elements: offset }];
  return { units, parameters: offset, normGroups: normGroupsOf(units, optimizer) };
}
