/** The gradient with respect to pixels: no part of training, but of a check of the whole backbone. */
import * as tf from "@tensorflow/tfjs-core";
import { parameterOf, type UnitTensors } from "../tensors.js";
import type { VitConfig } from "./config.js";
import { type CropGroup, type EmbedSaved, patchGrid, sequencesOf } from "./embed.js";

/** Gradients [n,H,W,C] of each group's pixels for dx [T,D], the gradient of the token rows. Leaves its arguments to the caller. */
export function pixelGradients(
  config: VitConfig,
  tensors: UnitTensors,
  groups: readonly CropGroup[],
  saved: EmbedSaved,
  dx: tf.Tensor2D,
): tf.Tensor4D[] {
  const weight = parameterOf<tf.Tensor2D>(tensors, "backbone.patch_embed.proj.weight");
  const { patchSize: p, registers, width } = config;
  let end = 0;
  return sequencesOf(config, groups).map(({ count, length }, i) => {
    const start = end;
    end += count * length;
    const group = groups[i] as CropGroup;
    const { height, width: columns } = patchGrid(config, group);
    return tf.tidy(() => {
      const rows = tf.reshape(tf.slice(dx, [start, 0], [end - start, -1]), [count, length, width]);
      const patches = tf.reshape(tf.slice(rows, [0, 1 + registers, 0]), [-1, width]);
      const mask = saved.groups[i]?.mask;
      const shown = (mask ? tf.mul(patches, tf.sub(1, mask)) : patches) as tf.Tensor2D;
      const dpatches = tf.reshape(tf.matMul(shown, weight), [count * height, columns, -1, p, p]);
      const rowsFirst = tf.transpose(dpatches, [0, 3, 1, 4, 2]);
      return tf.reshape(rowsFirst, [count, group.height, group.width, -1]) as tf.Tensor4D;
    });
  });
}
