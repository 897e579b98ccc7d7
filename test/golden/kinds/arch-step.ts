/**
 * Whole training steps of DINOv2's and DINOv3's SSLMetaArch: schedules, multipliers, what lies between inputs and losses, losses, gradients,
 * norms, updates, teachers, three-step trajectories. The spec comes from the official config by way of `paddock train --config`.
 */
import {
  frozenUnitsOf,
  gramUpdateDue,
  layoutOf,
  type StepScalars,
  scalarsAt,
} from "@paddock/contract";
import { applyPending, type ChooseSequences, initialCenters, type RankBatch } from "@paddock/model";
import { cropsOf } from "../backbone.js";
import {
  asDouble,
  asFinalNorm,
  asParameter,
  asProbability,
  asRelative,
  asStepGradient,
  type Check,
} from "../check.js";
import { ropeDraw } from "../draws.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import { emptyVectors, placesOf, readInto } from "../official-names.js";
import { type RunState, runStep, type StepInputs, type StepOutcome } from "../one-rank.js";
import { checkLosses, checkStatistics } from "./arch-losses.js";
import { Observed } from "./arch-observed.js";
import type { ArchRun } from "./arch-run.js";
import { archSpec } from "./arch-spec.js";

export const archStep: Kind = {
  name: "arch-step",
  matches: ({ family, config }) =>
    (family === "dinov2" || family === "dinov3") && Array.isArray(config.submodules),
  async run(golden, check, { flat }) {
    const run = await begin(golden, check);
    const { config } = golden;
    checkSchedules(run);
    checkMultipliers(run);
    for (let step = 0; step < config.steps; step++) {
      const at = config.first_iteration + step;
      const observed = step === 0 ? new Observed() : undefined;
      const inputs: StepInputs = {
        spec: run.spec,
        layout: run.layout,
        // Moments begin with the record.
        step,
        scalars: scalarsAt(run.spec, at),
        batch: batchOf(golden),
        flat,
        chooseSequences: recordedSequences(golden, step),
        drawRope: ({ block, group }) =>
          ropeDraw(
            golden,
            (part) => `inputs.rope.it${step}.block${block}.${sideOf(group)}.${part}`,
          ),
        ...(observed ? { observe: observed.note } : {}),
      };
      await checkStatistics(run, inputs, step);
      observed?.keepHeads(golden);
      const outcome = await runStep(run.state, inputs);
      if (gramUpdateDue(run.spec, at)) renewGramTeacher(run.state);
      observed?.check(run);
      if (step === 0) checkUpdate(run, outcome, inputs.scalars);
      checkLosses(run, step, inputs.scalars, outcome);
      checkNorms(run, step, outcome);
    }
    checkEnd(run);
  },
};

async function begin(golden: Golden, check: Check): Promise<ArchRun> {
  const spec = archSpec(golden);
  const layout = layoutOf(spec);
  const places = placesOf(layout, golden.config.param_names);
  const { units } = layout;
  const [student, teacher, frozen] = [
    emptyVectors(units),
    emptyVectors(units),
    emptyVectors(frozenUnitsOf(spec)),
  ];
  readInto(student, golden, places, "params.student.");
  readInto(teacher, golden, places, "params.teacher.");
  readInto(frozen, golden, places, "params.gram_teacher.");
  const centers = initialCenters(spec);
  const moments = { m: emptyVectors(units), v: emptyVectors(units) };
  return {
    golden,
    check,
    spec,
    layout,
    places,
    state: { student, teacher, frozen, ...moments, centers },
  };
}

function batchOf(golden: Golden): RankBatch {
  const crops = (name: string) => cropsOf(golden, `inputs.collated_${name}_crops`).pixels;
  const gram = golden.has("inputs.collated_gram_teacher_crops");
  const masked = golden.has("inputs.mask_indices_list");
  return {
    rank: 0,
    globalCrops: crops("global"),
    localCrops: golden.has("inputs.collated_local_crops") ? crops("local") : null,
    gramCrops: gram ? crops("gram_teacher") : null,
    // Empty tensors are left out.
    maskRows: masked ? golden.i32("inputs.mask_indices_list") : new Int32Array(0),
    maskWeights: masked ? golden.f32("inputs.masks_weight") : new Float32Array(0),
  };
}

function sideOf(group: number): string {
  return group === 0 ? "global" : "local";
}

function recordedSequences(golden: Golden, step: number): ChooseSequences {
  return ({ block, branch, group }) =>
    golden.i32(
      `inputs.indices.it${step}.block${block}.${branch === 0 ? "attn" : "ffn"}.${sideOf(group)}`,
    );
}

function renewGramTeacher({ frozen, teacher }: RunState): void {
  for (const [unit, values] of frozen ?? []) values.set(teacher.get(unit) as Float32Array);
}

const scalarNames = {
  lr: "learningRate",
  last_layer_lr: "lastLayerLearningRate",
  wd: "weightDecay",
  momentum: "momentum",
  teacher_temp: "teacherTemperature",
  dino_local_weight: "localWeight",
  gram_weight: "gramWeight",
} as const satisfies Record<string, keyof StepScalars>;

function checkSchedules({ golden, check, spec }: ArchRun): void {
  for (const name of golden.names("inputs.schedule.")) {
    const short = name.slice("inputs.schedule.".length) as keyof typeof scalarNames;
    const key = scalarNames[short];
    if (!key) throw new RangeError(`no schedule of ours is ${short}`);
    const recorded = golden.f64(name);
    const ours = Array.from(recorded, (_, step) =>
      scalarsAt(spec, golden.config.first_iteration + step),
    );
    check.close(
      name,
      ours.map((scalars) => scalars[key]),
      recorded,
      asDouble,
    );
  }
}

function checkMultipliers({ golden, check, places }: ArchRun): void {
  const recorded = golden.metadata<Record<string, [number, number, number]>>("multipliers");
  for (const { official, parameter } of places) {
    const { lrMultiplier, wdMultiplier, isLastLayer } = parameter;
    const expected = recorded[official];
    if (!expected) throw new RangeError(`no multipliers of ${official} are recorded`);
    const ours = [lrMultiplier, wdMultiplier, isLastLayer ? 1 : 0];
    check.close(`multipliers of ${official}`, ours, expected, asDouble);
  }
}

/** Gradients, and both networks after the first step. */
function checkUpdate(
  { golden, check, places, state }: ArchRun,
  outcome: StepOutcome,
  scalars: StepScalars,
): void {
  for (const place of places) {
    const { official } = place;
    const gradient = `grads.student.${official}`;
    if (golden.has(gradient)) check.tensor(gradient, place.in(outcome.grads), asStepGradient);
    const mask = `stable.student.${official}`;
    const stable = golden.has(mask) ? golden.u8(mask) : undefined;
    const student = place.in(state.student);
    const after = `outputs.student_after.${official}`;
    check.tensor(after, student, asParameter, stable);
    check.close(`${after}, all`, student, golden.f32(after), () => 2 * scalars.learningRate);
    check.tensor(`outputs.teacher_after.${official}`, place.in(state.teacher), asParameter, stable);
  }
}

function checkNorms({ golden, check }: ArchRun, step: number, { gradNorm }: StepOutcome): void {
  const names = golden.config.submodules as string[];
  const norms = names.map((name) => gradNorm.get(name) ?? Number.NaN);
  if (step === 0) check.tensor("outputs.grad_norm", norms, asRelative);
  const all = "outputs.trajectory.grad_norm";
  check.covered(all);
  const recorded = golden.f32(all).subarray(step * names.length, (step + 1) * names.length);
  check.close(`${all}, step ${step}`, norms, recorded, asRelative);
}

function checkEnd({ golden, check, places, spec, state }: ArchRun): void {
  const normsIn = (vectors: Map<string, Float32Array>): number[] =>
    places
      .map((place) => place.in(vectors))
      .filter(({ length }) => length > 0)
      .map((x) => Math.hypot(...x));
  check.tensor("outputs.trajectory.final_student_norms", normsIn(state.student), asFinalNorm);
  check.tensor("outputs.trajectory.final_teacher_norms", normsIn(state.teacher), asFinalNorm);
  const gram = "outputs.trajectory.final_gram_teacher_norms";
  if (golden.has(gram)) check.tensor(gram, normsIn(state.frozen ?? new Map()), asFinalNorm);
  if (spec.loss.centering === "sinkhorn") return;
  // The record was taken after the pending means of the last step had been folded in.
  const { dino, ibot } = applyPending(state.centers, spec.loss.centerMomentum);
  check.tensor("outputs.trajectory.final_dino_center", dino ?? [], asProbability);
  check.tensor("outputs.trajectory.final_ibot_center", ibot ?? [], asProbability);
}
