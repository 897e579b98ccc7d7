/**
 * The last layer of a head: directions with a magnitude (weight norm: DINO, DINOv2), or a plain linear layer without bias (DINOv3).
 * Shapes: K prototypes, B bottleneck.
 */
import * as tf from "@tensorflow/tfjs-core";
import type { Normalized } from "../ops/l2-normalize.js";
import { weightNorm, weightNormBackward } from "../ops/weight-norm.js";
import { optionalParameter, parameterOf, type UnitTensors } from "../tensors.js";
import type { Grads } from "../vit/layers.js";

export type Prototypes =
  | {
      readonly kind: "weight-norm";
      readonly name: string;
      /** Magnitudes [K,1] and directions [K,B]. */
      readonly g: tf.Tensor2D;
      readonly v: tf.Tensor2D;
      /** The magnitudes keep their values and get no gradient (DINO's norm_last_layer). */
      readonly freezeMagnitude: boolean;
    }
  | {
      readonly kind: "linear";
      readonly name: string;
      /** [K,B] */
      readonly weight: tf.Tensor2D;
    };

/** Weights w [K,B] of the prototype layer, and what their backward needs. */
export interface PrototypeWeights {
  readonly w: tf.Tensor2D;
  /** Absent without weight norm: w is then the parameter itself. */
  readonly direction?: Normalized;
}

/** The last layer `<name>`: weight-normalised if it has a magnitude. */
export function prototypesOf(
  tensors: UnitTensors,
  name: string,
  freezeMagnitude: boolean,
): Prototypes {
  const weight = optionalParameter<tf.Tensor2D>(tensors, `${name}.weight`);
  if (weight) return { kind: "linear", name, weight };
  return {
    kind: "weight-norm",
    name,
    g: parameterOf(tensors, `${name}.weight_g`),
    v: parameterOf(tensors, `${name}.weight_v`),
    freezeMagnitude,
  };
}

/** To be given back with `disposeWeights`. */
export function prototypeWeights(prototypes: Prototypes): PrototypeWeights {
  return prototypes.kind === "linear"
    ? { w: prototypes.weight }
    : weightNorm(prototypes.g, prototypes.v);
}

export function disposeWeights({ w, direction }: PrototypeWeights): void {
  if (direction) tf.dispose([w, direction.y, direction.norm]);
}

/** Puts the parameters' gradients for dw [K,B], which it takes over, into `grads`. */
export function backPrototypes(
  prototypes: Prototypes,
  { direction }: PrototypeWeights,
  dw: tf.Tensor2D,
  grads: Grads,
): void {
  if (prototypes.kind === "linear" || !direction) {
    grads[`${prototypes.name}.weight`] = dw;
    return;
  }
  const { dg, dv } = weightNormBackward(dw, prototypes.g, direction);
  dw.dispose();
  grads[`${prototypes.name}.weight_v`] = dv;
  if (prototypes.freezeMagnitude) dg.dispose();
  else grads[`${prototypes.name}.weight_g`] = dg;
}

/** The largest magnitude a score can have: scores are products of unit vectors with rows of w. Waits for the device. */
export async function scoreBound(prototypes: Prototypes): Promise<number> {
  const bound = tf.tidy(() =>
    prototypes.kind === "linear"
      ? tf.sqrt(tf.max(tf.sum(tf.square(prototypes.weight), 1)))
      : tf.max(tf.abs(prototypes.g)),
  );
  const value = (await bound.data())[0] as number;
  bound.dispose();
  return value;
}
