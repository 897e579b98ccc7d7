/** GELU in its exact form x (1 + erf(x / sqrt 2)) / 2, and its gradient. */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

/** Same shape as x; the caller owns it. */
export function gelu<T extends tf.Tensor>(x: T): T {
  if (hasFused("PaddockGelu")) return runFused("PaddockGelu", { x })[0] as T;
  return tf.tidy(() => tf.mul(x, normalCdf(x)));
}

/** dx for dy of the same shape. */
export function geluBackward<T extends tf.Tensor>(dy: T, x: T): T {
  if (hasFused("PaddockGeluBackward")) return runFused("PaddockGeluBackward", { dy, x })[0] as T;
  return tf.tidy(() => {
    const density = tf.mul(tf.exp(tf.mul(tf.square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
    return tf.mul(dy, tf.add(normalCdf(x), tf.mul(x, density)));
  });
}

function normalCdf<T extends tf.Tensor>(x: T): T {
  return tf.mul(tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1), 0.5);
}
