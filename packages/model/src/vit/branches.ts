/** The two branches of a block: attention, and the feed-forward (MLP or SwiGLU). */
import type * as tf from "@tensorflow/tfjs-core";
import { type AttentionOutput, attention, attentionBackward } from "../ops/attention.js";
import { mlp, mlpBackward } from "../ops/mlp.js";
import { rotate, rotateBackward } from "../ops/rope.js";
import { swiglu, swigluBackward } from "../ops/swiglu.js";
import type { UnitTensors } from "../tensors.js";
import type { VitConfig } from "./config.js";
import { applyLinear, backLinear, keepLinears, type LinearLayer, linearLayer } from "./layers.js";
import type { Inner } from "./residual.js";

export interface AttentionSaved extends AttentionOutput {
  /** [S,3D], q and k as attention sees them: rotated with rotary positions. */
  readonly qkv: tf.Tensor2D;
}

/** `<prefix>.attn`: qkv, rotation, attention, projection. */
export function attentionBranch(
  tensors: UnitTensors,
  prefix: string,
  { heads: numHeads, maskKeyBias }: Pick<VitConfig, "heads" | "maskKeyBias">,
): Inner<AttentionSaved> {
  const maskedPart = maskKeyBias ? ([1, 3] as const) : undefined;
  const qkvLayer = { ...linearLayer(tensors, `${prefix}.attn.qkv`), maskedPart };
  const projection = linearLayer(tensors, `${prefix}.attn.proj`);
  return {
    forward(n, { groups, rotation }) {
      const plain = applyLinear(qkvLayer, n);
      const qkv = rotation ? rotate(plain, rotation, { numHeads, groups }) : plain;
      const attended = attention(qkv, { numHeads, groups });
      return { r: applyLinear(projection, attended.out), saved: { qkv, ...attended } };
    },
    backward(dr, n, { qkv, out, lse }, { groups, rotation }, grads) {
      const dout = backLinear(projection, dr, out, grads);
      const drotated = attentionBackward(dout, qkv, { out, lse }, { numHeads, groups });
      dout.dispose();
      const dqkv = rotation ? rotateBackward(drotated, rotation, { numHeads, groups }) : drotated;
      const dn = backLinear(qkvLayer, dqkv, n, grads);
      dqkv.dispose();
      return dn;
    },
  };
}

export interface FeedForwardSaved {
  /** [S,hidden] (SwiGLU: [S,2 hidden]) before the nonlinearity. */
  readonly before: tf.Tensor2D;
}

/** `<prefix>.mlp`: fc1, GELU, fc2; or w12, SwiGLU, w3. */
export function feedForwardBranch(
  tensors: UnitTensors,
  prefix: string,
  kind: "mlp" | "swiglu",
): Inner<FeedForwardSaved> {
  const layersOf = (...names: readonly string[]) =>
    names.map((name) => linearLayer(tensors, `${prefix}.mlp.${name}`));
  return kind === "mlp" ? mlpBranch(layersOf("fc1", "fc2")) : swigluBranch(layersOf("w12", "w3"));
}

function mlpBranch(layers: readonly LinearLayer[]): Inner<FeedForwardSaved> {
  return {
    forward(n) {
      const { y, before } = mlp(n, layers);
      return { r: y, saved: { before: before[0] as tf.Tensor2D } };
    },
    backward(dr, n, { before }, _groups, grads) {
      const { dx, layers: gradients } = mlpBackward(dr, n, [before], layers);
      keepLinears(layers, gradients, grads);
      return dx;
    },
  };
}

function swigluBranch(layers: readonly LinearLayer[]): Inner<FeedForwardSaved> {
  const [into, out] = layers as [LinearLayer, LinearLayer];
  return {
    forward(n) {
      const before = applyLinear(into, n);
      const after = swiglu(before) as tf.Tensor2D;
      const r = applyLinear(out, after);
      after.dispose();
      return { r, saved: { before } };
    },
    backward(dr, n, { before }, _groups, grads) {
      const after = swiglu(before) as tf.Tensor2D;
      const dafter = backLinear(out, dr, after, grads);
      after.dispose();
      const dbefore = swigluBackward(dafter, before) as tf.Tensor2D;
      dafter.dispose();
      const dn = backLinear(into, dbefore, n, grads);
      dbefore.dispose();
      return dn;
    },
  };
}
