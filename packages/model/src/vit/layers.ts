/** Linear and norm layers bound to their parameter names, so that their gradients come out named. */
import type * as tf from "@tensorflow/tfjs-core";
import { layerNorm, layerNormBackward } from "../ops/layer-norm.js";
import { linear, linearBackward } from "../ops/linear.js";
import { optionalParameter, parameterOf, type UnitTensors } from "../tensors.js";

export interface LinearLayer {
  readonly name: string;
  readonly weight: tf.Tensor2D;
  readonly bias: tf.Tensor1D | undefined;
}

export interface NormLayer {
  readonly name: string;
  readonly weight: tf.Tensor1D;
  readonly bias: tf.Tensor1D;
  readonly eps: number;
}

/** What a norm's backward needs. */
export interface NormStats {
  readonly mean: tf.Tensor1D;
  readonly rstd: tf.Tensor1D;
}

/** Gradients by full parameter name. */
export type Grads = Record<string, tf.Tensor>;

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
  return { name, weight, bias: parameterOf(tensors, `${name}.bias`), eps };
}

export function applyLinear(layer: LinearLayer, x: tf.Tensor2D): tf.Tensor2D {
  return linear(x, layer.weight, layer.bias);
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
  if (db) grads[`${layer.name}.bias`] = db;
  return dx as tf.Tensor2D;
}

export function applyNorm(layer: NormLayer, x: tf.Tensor2D): NormStats & { y: tf.Tensor2D } {
  return layerNorm(x, layer.weight, layer.bias, layer.eps);
}

/** dx; the parameters' gradients go into `grads`. */
export function backNorm(
  layer: NormLayer,
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  stats: NormStats,
  grads: Grads,
): tf.Tensor2D {
  const { dx, dgamma, dbeta } = layerNormBackward(dy, x, stats, layer.weight);
  grads[`${layer.name}.weight`] = dgamma;
  grads[`${layer.name}.bias`] = dbeta;
  return dx;
}
