/** Taking and adding rows by index. Shapes: T rows, S selected rows, C features. */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

/** x[rows] [S,C], owned by the caller. @param rows int32 [S], each in [0,T) */
export function gatherRows(x: tf.Tensor2D, rows: tf.Tensor1D): tf.Tensor2D {
  if (hasFused("PaddockGatherRows")) {
    return runFused("PaddockGatherRows", { x, rows })[0] as tf.Tensor2D;
  }
  return tf.gather(x, rows);
}

/** x with r [S,C] added at `rows`, in their order (they may repeat): [T,C], owned by the caller. */
export function scatterAddRows(x: tf.Tensor2D, r: tf.Tensor2D, rows: tf.Tensor1D): tf.Tensor2D {
  if (hasFused("PaddockScatterAddRows")) {
    return runFused("PaddockScatterAddRows", { x, r, rows })[0] as tf.Tensor2D;
  }
  // On the host: wasm has no scatter-add, and its memory is the host's anyway.
  const sum = Float32Array.from(x.dataSync());
  const added = r.dataSync();
  const width = x.shape[1];
  // hot:
  rows.dataSync().forEach((row, s) => {
    for (let c = 0; c < width; c++) {
      sum[row * width + c] = (sum[row * width + c] as number) + (added[s * width + c] as number);
    }
  });
  return tf.tensor2d(sum, x.shape);
}
