/** DINOv3's Gram loss in every combination of its options, and the resizing of its teacher's patches. */
import { type GramOptions, gramLoss, resizePatches } from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { asLoss, asOutput, asStepGradient, type Check } from "../check.js";
import { onlyKnown, variantsOf } from "../config.js";
import type { Golden } from "../file.js";
import type { Kind } from "../kind.js";

interface LossVariant {
  readonly apply_norm: boolean;
  readonly img_level: boolean;
  readonly remove_neg: boolean;
  readonly remove_only_teacher_neg: boolean;
  /** Image 0 only, given as [P,D]. */
  readonly flattened?: boolean;
}

export const gramLossKind: Kind = {
  name: "gram-loss",
  matches: (golden) => everyVariantHas(golden, "apply_norm"),
  run(golden, check) {
    for (const [variant, config] of variantsOf<LossVariant>(golden.config)) {
      onlyKnown(variant, config, [
        "apply_norm",
        "img_level",
        "remove_neg",
        "remove_only_teacher_neg",
        "flattened",
      ]);
      checkVariant(golden, check, variant, config);
    }
  },
};

function checkVariant(golden: Golden, check: Check, variant: string, config: LossVariant): void {
  const options: GramOptions = {
    normalized: config.apply_norm,
    imageLevel: config.img_level,
    negatives: negativesOf(config),
  };
  const whole = ["student", "teacher"].map((side) => golden.tensor<tf.Tensor3D>(`inputs.${side}`));
  const [student, teacher] = whole.map((x) => (config.flattened ? firstImage(x) : tf.clone(x)));
  const { loss, dx } = gramLoss(student as tf.Tensor3D, teacher as tf.Tensor3D, options, 1);
  check.tensor(`outputs.${variant}.loss`, loss, asLoss);
  // Recorded by all images; the others have no part in it.
  const gradient = new Float32Array((whole[0] as tf.Tensor3D).size);
  gradient.set(dx.dataSync());
  check.tensor(`grads.${variant}.student`, gradient, asStepGradient);
  tf.dispose([...whole, student, teacher, dx] as tf.Tensor[]);
}

function negativesOf(config: LossVariant): GramOptions["negatives"] {
  if (config.remove_neg && config.remove_only_teacher_neg) {
    throw new RangeError("the official loss refuses both ways of removing negatives");
  }
  if (config.remove_neg) return "remove";
  return config.remove_only_teacher_neg ? "remove-teacher" : "keep";
}

function firstImage(x: tf.Tensor3D): tf.Tensor2D {
  return tf.tidy(() => tf.reshape(tf.slice(x, 0, 1), [x.shape[1], x.shape[2]]));
}

interface ResizeVariant {
  readonly n: number;
  readonly n_student: number;
  readonly method: "bicubic" | "bilinear";
  readonly antialias: boolean;
}

export const gramResize: Kind = {
  name: "gram-resize",
  matches: (golden) => everyVariantHas(golden, "n_student"),
  run(golden, check) {
    for (const [variant, config] of variantsOf<ResizeVariant>(golden.config)) {
      onlyKnown(variant, config, ["n", "n_student", "method", "antialias"]);
      if (!["bicubic", "bilinear"].includes(config.method)) {
        throw new RangeError(`${variant}: expected bicubic or bilinear, received ${config.method}`);
      }
      const patches = golden.tensor<tf.Tensor3D>(`inputs.${variant}.patches`);
      const resized = resizePatches(patches, config.n, config.n_student, {
        resize: config.method,
        antialias: config.antialias,
      });
      check.tensor(`outputs.${variant}.patches`, resized, asOutput);
      patches.dispose();
    }
  },
};

function everyVariantHas(golden: Golden, key: string): boolean {
  const variants = variantsOf<object>(golden.config);
  return variants.length > 0 && variants.every(([, config]) => key in config);
}
