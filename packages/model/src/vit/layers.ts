/** Linear and norm layers bound to their parameter names, so that their gradients come out named. */
import * as tf from "@tensorflow/tfjs-core";
import { layerNorm, layerNormBackward } from "../ops/layer-norm.js";
import { type LinearGradients, linear, linearBackward } from "../ops/linear.js";
import { rmsNorm, rmsNormBackward } from "../ops/rms-norm.js";
import { optionalParameter, parameterOf, type UnitTensors } from "../tensors.js";

export interface LinearLayer {
  readonly name: string;
  readonly weight: tf.Tensor2D;
  readonly bias: tf.Tensor1D | undefined;
  /** [part, parts]: of so many equal parts of the bias, this one is held at 0; its gradient is 0. */
  readonly maskedPart?: readonly [part: number, parts: number] | undefined;
}

/** A layer norm, or without a bias an RMS norm. */
export interface NormLayer {
  readonly name: string;
  readonly weight: tf.Tensor1D;
  readonly bias: tf.Tensor1D | undefined;
  readonly eps: number;
}

/** What a norm's backward needs. */
export interface NormStats {
  /** Absent for an RMS norm. */
  readonly mean?: tf.Tensor1D;
  readonly rstd: tf.Tensor1D;
}

/** Gradients by full parameter name. */
export type Grads = Record<string, tf.Tensor>;

/** Adds gradients to those of the same name in `sum`; takes them. */
export function addGrads(sum: Grads, grads: Grads): void {
  for (const [name, gradient] of Object.entries(grads)) {
    const known = sum[name];
    sum[name] = known ? tf.add(known, gradient) : gradient;
    if (known) tf.dispose([known, gradient]);
  }
}

/** The linear layer `<name>.weight`, `<name>.bias`; the bias may be absent. */
export function linearLayer(tensors: UnitTensors, name: string): LinearLayer {
  return {
    name,
    weight: parameterOf(tensors, `${name}.weight`),
    bias: optionalParameter(tensors, `${name}.bias`),
  };
}

export function normLayer(tensors: UnitTensors, name: string, eps: number): NormLayer {
  const weight = parameterOf<tf.Tensor1D>(tensors, `${name}.weight`);
  return { name, weight, bias: optionalParameter(tensors, `${name}.bias`), eps };
}

/** The tensors of a norm's statistics, for their disposal. */
export function statsOf({ mean, rstd }: NormStats): tf.Tensor1D[] {
  return mean ? [mean, rstd] : [rstd];
}

export function applyLinear(layer: LinearLayer, x: tf.Tensor2D): tf.Tensor2D {
  if (!layer.bias || !layer.maskedPart) return linear(x, layer.weight, layer.bias);
  const bias = withoutPart(layer.bias, layer.maskedPart);
  const y = linear(x, layer.weight, bias);
  bias.dispose();
  return y;
}

/** x with one of `parts` equal parts at 0, in the precision of x; the caller owns it. */
function withoutPart(x: tf.Tensor1D, [part, parts]: readonly [number, number]): tf.Tensor1D {
  return tf.tidy(() => {
    const pieces = tf.split(x, parts) as tf.Tensor1D[];
    return tf.concat(pieces.map((piece, i) => (i === part ? tf.mul(piece, 0) : piece)));
  });
}

/** dx; the parameters' gradients go into `grads`. */
export function backLinear(
  layer: LinearLayer,
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  grads: Grads,
): tf.Tensor2D {
  const hasBias = layer.bias !== undefined;
  const { dw, db, dx } = linearBackward(dy, x, layer.weight, { needDx: true, hasBias });
  grads[`${layer.name}.weight`] = dw;
  if (db) grads[`${layer.name}.bias`] = layer.maskedPart ? withoutPart(db, layer.maskedPart) : db;
  if (db && layer.maskedPart) db.dispose();
  return dx as tf.Tensor2D;
}

/** Puts the gradients of some layers into `grads`. */
export function keepLinears(
  layers: readonly LinearLayer[],
  gradients: readonly Omit<LinearGradients, "dx">[],
  grads: Grads,
): void {
  for (const [i, { dw, db }] of gradients.entries()) {
    const { name } = layers[i] as LinearLayer;
    grads[`${name}.weight`] = dw;
    if (db) grads[`${name}.bias`] = db;
  }
}

export function applyNorm(layer: NormLayer, x: tf.Tensor2D): NormStats & { y: tf.Tensor2D } {
  const { weight, bias, eps } = layer;
  return bias ? layerNorm(x, weight, bias, eps) : rmsNorm(x, weight, eps);
}

/** dx; the parameters' gradients go into `grads`. */
export function backNorm(
  layer: NormLayer,
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  stats: NormStats,
  grads: Grads,
): tf.Tensor2D {
  const { mean, rstd } = stats;
  if (!mean) {
    const { dx, dgamma } = rmsNormBackward(dy, x, rstd, layer.weight);
    grads[`${layer.name}.weight`] = dgamma;
    return dx;
  }
  const { dx, dgamma, dbeta } = layerNormBackward(dy, x, { mean, rstd }, layer.weight);
  grads[`${layer.name}.weight`] = dgamma;
  grads[`${layer.name}.bias`] = dbeta;
  return dx;
}
