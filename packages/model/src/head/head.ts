/**
 * Projection head: MLP, L2 norm, prototypes (dino_head.py of the three projects). Its loss is in loss.ts.
 * Shapes: N rows, D width, K prototypes.
 */
import * as tf from "@tensorflow/tfjs-core";
import { linear } from "../ops/linear.js";
import type { UnitTensors } from "../tensors.js";
import { bottleneck, disposeBottleneck, type MlpLayer, mlpOf } from "./mlp.js";
import { disposeWeights, type Prototypes, prototypesOf, prototypeWeights } from "./prototypes.js";

export interface Head {
  readonly mlp: readonly MlpLayer[];
  readonly prototypes: Prototypes;
}

/** The head whose parameters are `<prefix>.mlp...` and `<prefix>.last_layer...`; its form shows in their names and shapes. */
export function headOf(
  tensors: UnitTensors,
  prefix: string,
  { freezeMagnitude = false }: { readonly freezeMagnitude?: boolean } = {},
): Head {
  return {
    mlp: mlpOf(tensors, prefix),
    prototypes: prototypesOf(tensors, `${prefix}.last_layer`, freezeMagnitude),
  };
}

/** The scores [N,K] of the head for h [N,D], without backward. */
export function headScores(head: Head, h: tf.Tensor2D): tf.Tensor2D {
  const saved = bottleneck(head.mlp, h);
  const weights = prototypeWeights(head.prototypes);
  const scores = tf.tidy(() => linear(saved.unit.y, weights.w));
  disposeWeights(weights);
  disposeBottleneck(saved);
  return scores;
}
