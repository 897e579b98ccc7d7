/** Losses as the official logs report them. */
import type { StepScalars } from "@paddock/contract";
import { dinoPairs, gramLoss, gramPatches } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { asLoss, asRelative } from "../check.js";
import { computeStep, type StepInputs, type StepOutcome } from "../one-rank.js";
import type { ArchRun } from "./arch-run.js";

/** By their official names. */
type Reported = Readonly<Record<string, number>>;

export function checkLosses(
  run: ArchRun,
  step: number,
  scalars: StepScalars,
  outcome: StepOutcome,
): void {
  const reported =
    run.golden.family === "dinov2" ? dinov2(run, outcome) : dinov3(run, scalars, outcome);
  for (const [name, value] of Object.entries({ ...reported, loss_total: outcome.losses.total })) {
    compare(run, step, name, value);
  }
}

function compare({ golden, check }: ArchRun, step: number, name: string, value: number): void {
  const all = `outputs.trajectory.${name}`;
  if (!golden.has(all)) return;
  const tolerance = step === 0 ? asLoss : asRelative;
  if (step === 0) check.tensor(`outputs.${name}`, [value], tolerance);
  check.covered(all);
  check.close(
    `${name}, step ${step}`,
    [value],
    golden.f32(all).subarray(step, step + 1),
    tolerance,
  );
}

/** KoLeo, weighted, and iBOT at half of what enters the total. */
function dinov2({ spec }: ArchRun, { losses }: StepOutcome): Reported {
  return {
    "loss.dino_local_crops_loss": losses.dinoLocal,
    "loss.dino_global_crops_loss": losses.dinoGlobal,
    "loss.koleo_loss": (losses.koleo * spec.loss.koleo) / 2,
    "loss.ibot_loss": losses.ibot / 2,
  };
}

/** Means: over the pairs of each kind, and over the global crops. */
function dinov3({ spec }: ArchRun, scalars: StepScalars, { losses }: StepOutcome): Reported {
  const { local, global } = dinoPairs(spec);
  return {
    "loss.dino_local_crops_loss": (losses.dinoLocal * (local + global)) / local,
    "loss.dino_global_crops_loss": (losses.dinoGlobal * (local + global)) / global,
    "loss.dino_local_loss_weight": scalars.localWeight,
    "loss.koleo_loss": losses.koleo / 2,
    "loss.ibot_loss": losses.ibot,
    "loss.gram_loss": losses.gram,
    "loss.gram_loss_weight": scalars.gramWeight,
  };
}

/** gram.compute_stats: the Gram loss among masked and among other patches, which training has no use for. */
export async function checkStatistics(
  run: ArchRun,
  inputs: StepInputs,
  step: number,
): Promise<void> {
  const { golden, spec, state } = run;
  const { gram } = spec.loss;
  if (!gram || !golden.config.gram?.compute_stats) return;
  const all = { ...gram, tokens: "all", imageLevel: false } as const;
  const patches = new Map<string, tf.Tensor2D>();
  await computeStep(state, {
    ...inputs,
    spec: { ...spec, loss: { ...spec.loss, gram: all } },
    observe: (what, _rank, tensor) => {
      if (what === "gram-student" || what === "gram-teacher") {
        patches.set(what, tf.keep(tf.clone(tensor)) as tf.Tensor2D);
      }
    },
  });
  const student = patches.get("gram-student") as tf.Tensor2D;
  const teacher = patches.get("gram-teacher") as tf.Tensor2D;
  for (const tokens of ["masked", "unmasked"] as const) {
    const rows = gramPatches(tokens, inputs.batch.maskRows, student.shape[0]) as Int32Array;
    const value = tf.tidy(() => {
      const index = tf.tensor1d(rows, "int32");
      const [ours, theirs] = [tf.gather(student, index), tf.gather(teacher, index)];
      return gramLoss(ours, theirs, all, 1).loss.dataSync()[0] as number;
    });
    compare(run, step, `loss.stats_only/${tokens}_gram_loss`, value);
  }
  tf.dispose([student, teacher]);
}
