/** What lies between inputs and losses of the first recorded step. */
import { type Head, headOf, headScores, type TrainStepArgs } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { parametersOf } from "../backbone.js";
import { asOutput, asProbability } from "../check.js";
import type { Golden } from "../file.js";
import type { ArchRun } from "./arch-run.js";

interface Rows {
  readonly values: Float32Array;
  readonly rows: number;
}

export class Observed {
  readonly #seen = new Map<string, Rows>();
  #heads: { dino: Head; ibot: Head } | undefined;
  #tensors: tf.Tensor[] = [];

  readonly note: NonNullable<TrainStepArgs["observe"]> = (what, _rank, tensor) => {
    const values = Float32Array.from(tensor.dataSync());
    this.#seen.set(what, { values, rows: tensor.shape[0] as number });
  };

  /** The student's heads as they were before the update. */
  keepHeads(golden: Golden): void {
    const read = (name: string): Head => {
      const tensors = parametersOf(golden, `params.student.${name}.`, `${name}.`);
      this.#tensors.push(...Object.values(tensors));
      return headOf(tensors, name);
    };
    const dino = read("dino_head");
    const ownHead = golden.names("params.student.ibot_head.").length > 0;
    this.#heads = { dino, ibot: ownHead ? read("ibot_head") : dino };
  }

  check(run: ArchRun): void {
    const { golden, check } = run;
    this.#checkTargets(run);
    this.#checkStudent(run);
    if (golden.has("outputs.gram_student_patches")) {
      check.tensor("outputs.gram_student_patches", this.#rows("gram-student").values, asOutput);
      check.tensor("outputs.gram_teacher_patches", this.#rows("gram-teacher").values, asOutput);
    }
    tf.dispose(this.#tensors);
  }

  #checkTargets({ golden, check, spec }: ArchRun): void {
    const cls = this.#rows("cls-targets").values;
    // DINOv2 puts crop B before crop A, so that each student row meets the other view.
    const half = cls.length / 2;
    const swapped = Float32Array.of(...cls.subarray(half), ...cls.subarray(0, half));
    const inOrder = golden.family === "dinov2" ? swapped : cls;
    check.tensor("outputs.teacher_cls_probs", inOrder, asProbability);
    if (spec.loss.ibot > 0 && golden.has("inputs.mask_indices_list")) {
      check.tensor(
        "outputs.teacher_masked_probs",
        this.#rows("patch-targets").values,
        asProbability,
      );
    }
    const scores = "outputs.teacher_cls_after_head";
    if (golden.has(scores)) {
      check.tensor(scores, this.#rows("teacher-cls-scores").values, asProbability);
    }
  }

  /** Scores of the student's rows, which a step never holds together. */
  #checkStudent({ golden, check, spec }: ArchRun): void {
    const heads = this.#heads;
    if (!heads) throw new RangeError("heads are kept before the step");
    const { batchPerRank, crops } = spec;
    const { values, rows } = this.#rows("student-rows");
    const all = tf.tensor2d(values, [rows, values.length / rows]);
    const [locals, globals] = [crops.localCount * batchPerRank, 2 * batchPerRank];
    const indices = "inputs.mask_indices_list";
    const masked = golden.has(indices) ? golden.i32(indices).length : 0;
    const compare = (name: string, head: Head, start: number, count: number): void => {
      if (count === 0) return;
      const part = tf.slice(all, [start, 0], [count, -1]);
      check.tensor(`outputs.${name}_after_head`, headScores(head, part), asProbability);
      part.dispose();
    };
    const cls = golden.family === "dinov3" ? "_cls" : "";
    compare(`student_local${cls}`, heads.dino, 0, locals);
    compare(`student_global${cls}`, heads.dino, locals, globals);
    if (spec.loss.ibot > 0) compare("student_masked", heads.ibot, locals + globals, masked);
    all.dispose();
  }

  #rows(what: string): Rows {
    const rows = this.#seen.get(what);
    if (!rows) throw new RangeError(`the step showed no ${what}`);
    return rows;
  }
}
