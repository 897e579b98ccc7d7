/** DINO's whole training iterations: outputs, loss, centre, gradients before and after clipping, update, and the run to its end. */
import {
  type Layout,
  layoutOf,
  type Parameter,
  parseRunSpec,
  type RunSpec,
  scalarsAt,
} from "@paddock/contract";
import { applyPending, initialCenters, type RankBatch } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { cropsOf, plainName } from "../backbone.js";
import {
  asDouble,
  asFinalNorm,
  asLoss,
  asParameter,
  asProbability,
  asRelative,
  asStepGradient,
  type Check,
} from "../check.js";
import { onlyKnown } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";
import { cosine, valuesOf } from "../official-schedules.js";
import { type RunState, runStep, type StepOutcome, scoresOf } from "../one-rank.js";

const model = ["embed", "depth", "heads", "patch", "img", "mlp_ratio", "qkv_bias"];
const head = ["out_dim", "hidden_dim", "bottleneck_dim", "nlayers", "norm_last_layer"];
const data = ["local", "n_local", "batch"];
const temperature = ["warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs"];
const rates = ["lr", "min_lr", "warmup_epochs", "lr_schedule_start_warmup_value"];
const schedule = ["epochs", "niter_per_ep", "weight_decay", "weight_decay_end", "momentum_teacher"];
const optimizer = ["clip_grad", "freeze_last_layer", "adamw"];
const record = ["first_epoch", "first_iteration", "n_iterations", "grad_names", "param_names"];
const known = [model, head, data, temperature, rates, schedule, optimizer, record].flat();

export const dinoStep: Kind = {
  name: "dino-step",
  matches: (golden) => golden.family === "dinov1" && golden.has("outputs.trajectory.loss"),
  async run(golden, check, { flat }) {
    onlyKnown("config", golden.config, known);
    const { first_iteration: first, n_iterations: count } = golden.config;
    const spec = specOf(golden);
    const layout = layoutOf(spec);
    checkSchedules(golden, check, spec);
    const state = stateOf(golden, spec, layout);
    const batch = batchOf(golden, spec);
    await checkOutputs(check, { spec, layout, state, batch });
    for (let step = 0; step < count; step++) {
      const outcome = await runStep(state, {
        // Moments begin with the record: what was frozen before it never was.
        spec: startedAt(spec, first),
        layout,
        step,
        scalars: scalarsAt(spec, first + step),
        batch,
        flat,
      });
      if (step === 0) checkFirst(golden, check, { spec, layout, state, outcome });
      const expected = golden.f32("outputs.trajectory.loss").subarray(step, step + 1);
      check.close(
        `loss, step ${step}`,
        [outcome.losses.total],
        expected,
        step === 0 ? asLoss : asRelative,
      );
    }
    check.covered("outputs.trajectory.loss");
    checkEnd(golden, check, { spec, layout, state });
  },
};

function specOf({ config: c }: Golden): RunSpec {
  const epoch = c.niter_per_ep;
  return parseRunSpec({
    steps: c.epochs * epoch,
    logicalRanks: 1,
    batchPerRank: c.batch,
    data: { path: "unused" },
    fleet: { workers: 1 },
    model: {
      width: c.embed,
      depth: c.depth,
      heads: c.heads,
      patchSize: c.patch,
      mlpRatio: c.mlp_ratio,
      qkvBias: c.qkv_bias,
      layerScale: 0,
    },
    heads: {
      dino: {
        prototypes: c.out_dim,
        hidden: c.hidden_dim,
        bottleneck: c.bottleneck_dim,
        layers: Math.max(1, c.nlayers),
        freezeMagnitude: c.norm_last_layer,
      },
    },
    crops: {
      global: { size: c.img, scale: [0.4, 1] },
      local: { size: c.n_local > 0 ? c.local : c.img, scale: [0.05, 0.4] },
      localCount: c.n_local,
    },
    loss: { ibot: 0, koleo: 0, centering: "softmax" },
    schedules: {
      learningRate: cosine({
        base_value: c.lr,
        final_value: c.min_lr,
        warmup_iters: c.warmup_epochs * epoch,
        start_warmup_value: c.lr_schedule_start_warmup_value ?? 0,
      }),
      weightDecay: cosine({ base_value: c.weight_decay, final_value: c.weight_decay_end }),
      momentum: cosine({ base_value: c.momentum_teacher, final_value: 1 }),
      teacherTemperature: {
        start: c.warmup_teacher_temp,
        peak: c.teacher_temp,
        warmupSteps: c.warmup_teacher_temp_epochs,
        stepsPerValue: epoch,
      },
      freezeLastLayerSteps: c.freeze_last_layer * epoch,
    },
    optimizer: {
      ...adamw(c.adamw),
      layerDecay: 1,
      patchEmbedMultiplier: 1,
      decay: "matrices",
      clipBy: "tensor",
      clipNorm: c.clip_grad ?? 0,
      freezeLastLayer: "gradient",
    },
  });
}

function adamw(config: { betas: [number, number]; eps: number }) {
  onlyKnown("adamw", config, ["betas", "eps"]);
  const [beta1, beta2] = config.betas;
  return { beta1, beta2, eps: config.eps };
}

/** The spec of a run whose step 0 is `first` of the original, as far as an update counts steps. */
function startedAt(spec: RunSpec, first: number): RunSpec {
  const left = Math.max(0, spec.schedules.freezeLastLayerSteps - first);
  return { ...spec, schedules: { ...spec.schedules, freezeLastLayerSteps: left } };
}

function checkSchedules(golden: Golden, check: Check, spec: RunSpec): void {
  const first = golden.config.first_iteration as number;
  for (const name of ["lr", "wd", "momentum"] as const) {
    const recorded = golden.f64(`inputs.schedule.${name}`);
    const ours = valuesOf(spec, name, first + recorded.length).subarray(first);
    check.close(`schedule ${name}`, ours, recorded, asDouble);
  }
}

function batchOf(golden: Golden, { crops }: RunSpec): RankBatch {
  const views = Array.from(
    { length: 2 + crops.localCount },
    (_, view) => cropsOf(golden, `inputs.view.${view}`).pixels,
  );
  return {
    rank: 0,
    globalCrops: joined(views.slice(0, 2)),
    localCrops: crops.localCount > 0 ? joined(views.slice(2)) : null,
    maskRows: new Int32Array(0),
    maskWeights: new Float32Array(0),
  };
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The official name of a parameter: the head is called `head`. */
function officialName({ name }: Parameter): string {
  return name.replace(/^dino_head\./, "head.");
}

function stateOf(golden: Golden, spec: RunSpec, layout: Layout): RunState {
  const read = (side: string): Map<string, Float32Array> =>
    new Map(
      layout.units.map((unit) => {
        const values = new Float32Array(unit.elements);
        for (const parameter of recordedIn(golden, unit.parameters)) {
          values.set(golden.f32(`params.${side}.${officialName(parameter)}`), parameter.offset);
        }
        return [unit.name, values];
      }),
    );
  const zeros = (): Map<string, Float32Array> =>
    new Map(layout.units.map(({ name, elements }) => [name, new Float32Array(elements)]));
  const student = read("student");
  const count = layout.units.flatMap((unit) => recordedIn(golden, unit.parameters)).length;
  if (count !== golden.names("params.student.").length) {
    throw new RangeError(`expected all recorded parameters to have a place, ${count} have`);
  }
  const centers = initialCenters(spec);
  return { student, teacher: read("teacher"), m: zeros(), v: zeros(), centers };
}

/** The parameters that DINO has too: it has no mask token, which stays zero here. */
function recordedIn(golden: Golden, parameters: readonly Parameter[]): readonly Parameter[] {
  return parameters.filter((parameter) => golden.has(`params.student.${officialName(parameter)}`));
}

interface Run {
  readonly spec: RunSpec;
  readonly layout: Layout;
  readonly state: RunState;
}

/** Scores of both networks, crop by crop. */
async function checkOutputs(
  check: Check,
  { spec, layout, state, batch }: Run & { readonly batch: RankBatch },
): Promise<void> {
  const { crops } = spec;
  const local = { images: batch.localCrops ?? new Float32Array(0), size: crops.local.size };
  const globals = { images: batch.globalCrops, size: crops.global.size };
  const scores = (side: "student" | "teacher", crop: typeof local) =>
    scoresOf(state, { spec, layout, side, ...crop });
  const teacher = await scores("teacher", globals);
  check.tensor("outputs.teacher_output", teacher, asProbability);
  const views = crops.localCount > 0 ? [globals, local] : [globals];
  const parts: tf.Tensor2D[] = [];
  for (const view of views) parts.push(await scores("student", view));
  check.tensor("outputs.student_output", tf.concat(parts), asProbability);
  tf.dispose(parts);
}

function checkFirst(
  golden: Golden,
  check: Check,
  { spec, layout, state, outcome }: Run & { readonly outcome: StepOutcome },
): void {
  const learningRate = scalarsAt(spec, golden.config.first_iteration).learningRate;
  check.tensor("outputs.loss", [outcome.losses.total], asLoss);
  const { dino } = applyPending(state.centers, spec.loss.centerMomentum);
  check.tensor("outputs.center_after", dino ?? [], asProbability);
  for (const unit of layout.units) {
    for (const parameter of recordedIn(golden, unit.parameters)) {
      const name = officialName(parameter);
      const part = (vectors: Map<string, Float32Array>): Float32Array =>
        (vectors.get(unit.name) as Float32Array).subarray(
          parameter.offset,
          parameter.offset + parameter.elements,
        );
      const gradName = `grads.student.${name}`;
      check.equal(`${name} is trained`, parameter.trainable, golden.has(gradName));
      if (golden.has(gradName)) {
        check.tensor(gradName, part(outcome.grads), asStepGradient);
        const clipped = `grads_clipped.student.${name}`;
        if (golden.has(clipped)) check.tensor(clipped, part(outcome.clipped), asStepGradient);
      }
      const stable = stableIn(golden, name);
      const after = `outputs.student_after.${name}`;
      check.tensor(after, part(state.student), asParameter, stable);
      check.close(`${name}, all`, part(state.student), golden.f32(after), () => 2 * learningRate);
      check.tensor(`outputs.teacher_after.${name}`, part(state.teacher), asParameter, stable);
    }
  }
  const norms = (golden.config.grad_names as string[]).map(
    (name) => outcome.norms[plainName(name).replace(/^head\./, "dino_head.")] as number,
  );
  // Only clipping makes DINO compute them.
  const recorded = "outputs.param_grad_norms";
  if (golden.has(recorded)) check.tensor(recorded, norms, asRelative);
}

/** Elements that must agree after the first step; all, of a parameter without a gradient. */
function stableIn(golden: Golden, name: string): Uint8Array | undefined {
  const mask = `stable.student.${name}`;
  return golden.has(mask) ? golden.u8(mask) : undefined;
}

function checkEnd(golden: Golden, check: Check, { spec, layout, state }: Run): void {
  for (const side of ["student", "teacher"] as const) {
    const norms = new Map<string, number>();
    for (const unit of layout.units) {
      for (const parameter of unit.parameters) {
        const { offset, elements } = parameter;
        const values = state[side].get(unit.name)?.subarray(offset, offset + elements) ?? [];
        norms.set(officialName(parameter), Math.hypot(...values));
      }
    }
    const ours = (golden.config.param_names as string[]).map(
      (name) => norms.get(plainName(name)) ?? Number.NaN,
    );
    check.tensor(`outputs.trajectory.final_${side}_norms`, ours, asFinalNorm);
  }
  // The last step's mean is still to be folded in; DINO does so at once.
  const { dino } = applyPending(state.centers, spec.loss.centerMomentum);
  check.tensor("outputs.trajectory.final_center", dino ?? [], asProbability);
}
