/** Batches of small matrix products. */
import * as tf from "@tensorflow/tfjs-core";

/** Multiply-adds per product from which a loop over single products is faster on wasm (measured: between 10 and 37 rows). */
const worthLooping = 40_000;

/** a [b,m,k] times c [b,k,n]: [b,m,n], owned by the caller. */
export function batchMatMul(a: tf.Tensor3D, c: tf.Tensor3D): tf.Tensor3D {
  const [, m, k] = a.shape;
  const n = c.shape[2];
  if (tf.getBackend() !== "wasm" || m * k * n < worthLooping) return tf.matMul(a, c);
  return tf.tidy(() => {
    // TF.js's wasm uses its fast matrix product (XNNPACK) for single ones only: 3 to 10 times faster from about 32 rows on.
    const [as, cs] = [matricesOf(a), matricesOf(c)];
    const products = as.map((left, i) => tf.matMul(left, cs[i] as tf.Tensor2D));
    return tf.reshape(tf.concat(products), [-1, m, n]);
  });
}

/** One tensor per matrix. Through the host: TF.js's wasm slice reads its whole input every time. */
function matricesOf(x: tf.Tensor3D): tf.Tensor2D[] {
  const [count, rows, columns] = x.shape;
  const values = x.dataSync();
  const size = rows * columns;
  return Array.from({ length: count }, (_, i) =>
    tf.tensor2d(values.subarray(i * size, (i + 1) * size), [rows, columns]),
  );
}
