/** Whole steps against the reference's SSLMetaArch: losses, gradients, norms, updates, teacher, three-step trajectories. */
import {
  type Layout,
  layoutOf,
  type Parameter,
  parseRunSpec,
  type RunSpec,
  type StepScalars,
  type Unit,
} from "@paddock/contract";
import { applyPending, type ChooseSequences, initialCenters, type RankBatch } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { beforeEach, describe, expect, test } from "vitest";
import { cropsOf, plainName } from "../golden/backbone.js";
import {
  asLoss,
  asParameter,
  asProbability,
  asRelative,
  asStepGradient,
  expectClose,
} from "./support/close.js";
import { engines } from "./support/engines.js";
import { type RunState, runStep, type StepOutcome } from "./support/one-rank.js";
import { type Golden, readGolden } from "./support/safetensors.js";

const files = [
  "arch_step_centering_shared_head",
  "arch_step_sinkhorn_separate_head",
  "arch_step_stochastic_depth_frozen_last",
];

describe.each(engines)("training step on $name", ({ use }) => {
  beforeEach(use);

  for (const file of files) {
    for (const activations of ["keep", "recompute"] as const) {
      test(`${file} matches the reference with activations: ${activations}`, async () => {
        const golden = readGolden(`dinov2/${file}`);
        const spec = specOf(golden, activations);
        const layout = layoutOf(spec);
        const state = stateOf(golden, spec, layout);
        const before = tf.memory().numTensors;
        for (let step = 0; step < golden.config.steps; step++) {
          const outcome = await runStep(state, {
            spec,
            layout,
            step,
            scalars: scalarsOf(golden, step),
            batch: batchOf(golden),
            chooseSequences: recorded(golden, step),
          });
          if (step === 0) checkFirst(golden, layout, state, outcome);
          checkTrajectory(golden, spec, step, outcome);
        }
        checkEnd(golden, spec, layout, state);
        expect(tf.memory().numTensors).toBe(before);
      });
    }
  }
});

function specOf(golden: Golden, activations: "keep" | "recompute"): RunSpec {
  const { dino, ibot, student, optim, crops, batch, steps, centering } = golden.config;
  const head = (h: typeof dino) => ({
    prototypes: h.head_n_prototypes,
    bottleneck: h.head_bottleneck_dim,
    hidden: h.head_hidden_dim,
    layers: h.head_nlayers,
  });
  return parseRunSpec({
    steps,
    logicalRanks: 1,
    batchPerRank: batch,
    data: { path: "unused" },
    fleet: { workers: 1 },
    model: {
      width: student.arch.embed,
      depth: student.arch.depth,
      heads: student.arch.heads,
      mlpRatio: student.arch.mlp_ratio,
      patchSize: student.patch_size,
      ffn: student.ffn_layer === "mlp" ? "mlp" : "swiglu",
      registers: student.num_register_tokens,
      layerScale: student.layerscale,
      dropPathRate: student.drop_path_rate,
      interpolateOffset: student.interpolate_offset,
      interpolateAntialias: student.interpolate_antialias,
    },
    heads: { dino: head(dino), ibot: ibot.separate_head ? head(ibot) : null },
    crops: {
      global: { size: crops.global_crops_size, scale: crops.global_crops_scale },
      local: { size: crops.local_crops_size, scale: crops.local_crops_scale },
      localCount: crops.local_crops_number,
    },
    loss: {
      dino: dino.loss_weight,
      ibot: ibot.loss_weight,
      koleo: dino.koleo_loss_weight,
      centering: centering === "centering" ? "softmax" : "sinkhorn",
    },
    optimizer: {
      layerDecay: optim.layerwise_decay,
      patchEmbedMultiplier: optim.patch_embed_lr_mult,
      clipNorm: optim.clip_grad,
    },
    engine: { activations },
  });
}

function scalarsOf(golden: Golden, step: number): StepScalars {
  const at = (name: string) => golden.f64(`inputs.schedule.${name}`)[step] as number;
  return {
    learningRate: at("lr"),
    lastLayerLearningRate: at("last_layer_lr"),
    weightDecay: at("wd"),
    momentum: at("momentum"),
    teacherTemperature: at("teacher_temp"),
    localWeight: 1,
    gramWeight: 1,
  };
}

function batchOf(golden: Golden): RankBatch {
  return {
    rank: 0,
    globalCrops: cropsOf(golden, "inputs.collated_global_crops").pixels,
    localCrops: cropsOf(golden, "inputs.collated_local_crops").pixels,
    maskRows: golden.i32("inputs.mask_indices_list"),
    maskWeights: golden.f32("inputs.masks_weight"),
  };
}

/** The recorded index sets of stochastic depth. */
function recorded(golden: Golden, step: number): ChooseSequences {
  return ({ block, branch, group }) =>
    golden.i32(
      `inputs.indices.it${step}.block${block}.${branch === 0 ? "attn" : "ffn"}.${group === 0 ? "global" : "local"}`,
    );
}

/** Every parameter with its unit and the reference's name of it. */
function* parametersIn(golden: Golden, layout: Layout): Generator<[Unit, Parameter, string]> {
  const official = new Map(
    (golden.config.param_names as string[]).map((name) => [plainName(name), name]),
  );
  for (const unit of layout.units) {
    for (const parameter of unit.parameters) {
      const name = official.get(parameter.name);
      if (!name) throw new RangeError(`the reference has no ${parameter.name}`);
      official.delete(parameter.name);
      yield [unit, parameter, name];
    }
  }
  expect([...official.keys()]).toEqual([]);
}

function stateOf(golden: Golden, spec: RunSpec, layout: Layout): RunState {
  const empty = () =>
    new Map(layout.units.map((unit) => [unit.name, new Float32Array(unit.elements)]));
  const state = {
    student: empty(),
    teacher: empty(),
    m: empty(),
    v: empty(),
    centers: initialCenters(spec),
  };
  for (const side of ["student", "teacher"] as const) {
    for (const [unit, { offset }, name] of parametersIn(golden, layout)) {
      state[side].get(unit.name)?.set(golden.f32(`params.${side}.${name}`), offset);
    }
  }
  return state;
}

function checkFirst(golden: Golden, layout: Layout, state: RunState, outcome: StepOutcome): void {
  const learningRate = golden.f64("inputs.schedule.lr")[0] as number;
  for (const [unit, { offset, elements }, name] of parametersIn(golden, layout)) {
    const part = (vectors: Map<string, Float32Array>) =>
      (vectors.get(unit.name) as Float32Array).subarray(offset, offset + elements);
    const gradient = `grads.student.${name}`;
    if (golden.has(gradient)) {
      expectClose(gradient, part(outcome.grads), golden.f32(gradient), asStepGradient);
    }
    const stable = golden.u8(`stable.student.${name}`);
    const student = golden.f32(`outputs.student_after.${name}`);
    const teacher = golden.f32(`outputs.teacher_after.${name}`);
    expectClose(`student ${name}`, part(state.student), student, asParameter, stable);
    expectClose(`student ${name}`, part(state.student), student, () => 2 * learningRate);
    expectClose(`teacher ${name}`, part(state.teacher), teacher, asParameter, stable);
  }
  const norms = (golden.config.submodules as string[]).map(
    (name) => outcome.gradNorm.get(name) ?? 0,
  );
  expectClose("gradient norms", norms, golden.f32("outputs.grad_norm"), asRelative);
  checkLosses(golden, "outputs", 0, outcome);
}

/** The reference reports KoLeo, weighted, and iBOT at half of what enters the total. */
function checkLosses(golden: Golden, prefix: string, step: number, { losses }: StepOutcome): void {
  const { koleo_loss_weight: koleoWeight } = golden.config.dino;
  const reported = {
    "loss.dino_local_crops_loss": losses.dinoLocal,
    "loss.dino_global_crops_loss": losses.dinoGlobal,
    "loss.koleo_loss": (losses.koleo * koleoWeight) / 2,
    "loss.ibot_loss": losses.ibot / 2,
    loss_total: losses.total,
  };
  for (const [name, value] of Object.entries(reported)) {
    if (name === "loss.koleo_loss" && koleoWeight === 0) expect(value).toBe(0);
    else {
      const expected = golden.f32(`${prefix}.${name}`)[step] as number;
      expectClose(`${name}, step ${step}`, [value], [expected], step === 0 ? asLoss : asRelative);
    }
  }
}

function checkTrajectory(golden: Golden, spec: RunSpec, step: number, outcome: StepOutcome): void {
  checkLosses(golden, "outputs.trajectory", step, outcome);
  const submodules = golden.config.submodules as string[];
  expect(submodules.length).toBe(spec.heads.ibot ? 3 : 2);
  const norms = submodules.map((name) => outcome.gradNorm.get(name) ?? 0);
  const recordedNorms = golden
    .f32("outputs.trajectory.grad_norm")
    .subarray(step * submodules.length, (step + 1) * submodules.length);
  expectClose(`gradient norms, step ${step}`, norms, recordedNorms, asRelative);
}

function checkEnd(golden: Golden, spec: RunSpec, layout: Layout, state: RunState): void {
  for (const side of ["student", "teacher"] as const) {
    const norms = new Map<string, number>();
    for (const [unit, { offset, elements }, name] of parametersIn(golden, layout)) {
      const values = state[side].get(unit.name)?.subarray(offset, offset + elements) ?? [];
      norms.set(name, Math.hypot(...values));
    }
    const ours = (golden.config.param_names as string[]).map((name) => norms.get(name) ?? 0);
    const expected = golden.f32(`outputs.trajectory.final_${side}_norms`);
    expectClose(`final ${side} norms`, ours, expected, () => 5e-3);
  }
  if (spec.loss.centering === "softmax") {
    // The record was taken after the pending means of the last step had been folded in.
    const { dino, ibot } = applyPending(state.centers, spec.loss.centerMomentum);
    const center = (name: string) => golden.f32(`outputs.trajectory.final_${name}_center`);
    expectClose("DINO centre", dino ?? [], center("dino"), asProbability);
    expectClose("iBOT centre", ibot ?? [], center("ibot"), asProbability);
  }
}
