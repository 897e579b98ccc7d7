/** SwiGLU: silu(a) * b, where a and b are the halves of each row. Shapes: M rows, H hidden features. */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

/** @param x [M,2H] @returns [M,H], owned by the caller. */
export function swiglu(x: tf.Tensor2D): tf.Tensor2D {
  if (hasFused("PaddockSwiglu")) return runFused("PaddockSwiglu", { x })[0] as tf.Tensor2D;
  return tf.tidy(() => {
    const [a, b] = halves(x);
    return tf.mul(tf.mul(a, tf.sigmoid(a)), b);
  });
}

/** dx [M,2H] for dy [M,H]. */
export function swigluBackward(dy: tf.Tensor2D, x: tf.Tensor2D): tf.Tensor2D {
  if (hasFused("PaddockSwigluBackward")) {
    return runFused("PaddockSwigluBackward", { dy, x })[0] as tf.Tensor2D;
  }
  return tf.tidy(() => {
    const [a, b] = halves(x);
    const gate = tf.sigmoid(a);
    const silu = tf.mul(a, gate);
    // silu' = gate + silu (1 - gate)
    const slope = tf.add(gate, tf.mul(silu, tf.sub(1, gate)));
    return tf.concat([tf.mul(tf.mul(dy, b), slope), tf.mul(dy, silu)] as tf.Tensor2D[], 1);
  });
}

function halves(x: tf.Tensor2D): [tf.Tensor2D, tf.Tensor2D] {
  const [rows, columns] = x.shape;
  const half = columns / 2;
  return [tf.slice(x, [0, 0], [rows, half]), tf.slice(x, [0, half], [rows, half])];
}
