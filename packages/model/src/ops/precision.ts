/**
 * Storage and arithmetic of matrix products: float32, or bfloat16 / half with float32 sums. A tensor of lower precision is a
 * float32 tensor to TF.js; fused kernels follow their inputs (KERNELS.md). Products take their weights' precision, so weights
 * decide: `viewUnit` lowers those of the backbone's linear layers. Residual stream, norms, LayerScale, heads, losses and gradients of
 * weights stay float32. The heads because their scores are divided by temperatures of a few hundredths: in bfloat16 they alone
 * put a step's gradients 2 % off; on GPUs their products round to TF32 instead.
 */
import type { RunSpec } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";

export type Precision = RunSpec["engine"]["precision"];

/**
 * x in another precision, owned by the caller.
 * @throws RangeError if the active engine cannot store it: wasm and tensorflow know float32 only.
 */
export function toPrecision<T extends tf.Tensor>(x: T, precision: Precision): T {
  if (hasFused("PaddockToPrecision")) {
    return runFused("PaddockToPrecision", { x }, { precision })[0] as T;
  }
  if (precision === "fp32") return tf.clone(x);
  throw new RangeError(`the engine ${tf.getBackend()} computes in fp32 only, not in ${precision}`);
}

/** Whether a parameter is a weight or bias of one of the backbone's linear layers: an operand of a product, and nothing else. */
export function isProductOperand(name: string): boolean {
  return /\.(attn\.(qkv|proj)|mlp\.(fc1|fc2|w12|w3)|patch_embed\.proj)\.(weight|bias)$/.test(name);
}
