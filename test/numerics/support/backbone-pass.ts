/** A whole backbone forward and backward with every activation in sight. */
import {
  blockBackward,
  blockForward,
  blockOf,
  type CropGroup,
  embed,
  embedBackward,
  output,
  outputBackward,
  type RowSubset,
  type SequenceGroup,
  sequencesOf,
  type UnitTensors,
  type VitConfig,
} from "@paddock/model";
import * as tf from "@tensorflow/tfjs-core";
import { accumulate } from "./backbone.js";

export interface Model {
  readonly config: VitConfig;
  readonly tensors: UnitTensors;
}

export interface Pass {
  /** [T,D] packed rows: those after the embedding, then after each block. Disposed by `backward`. */
  readonly rows: readonly tf.Tensor2D[];
  /** [T,D] all rows after the final norm; owned by the caller. */
  readonly h: tf.Tensor2D;
  /** Adds the parameters' gradients for dh [T,D], which it disposes, to `sums`. */
  backward(dh: tf.Tensor2D, sums: Map<string, Float32Array>): void;
}

type Draw = (
  block: number,
  branch: 0 | 1,
  sequences: readonly SequenceGroup[],
) => RowSubset | undefined;

export function passOf(
  { config, tensors }: Model,
  groups: readonly CropGroup[],
  draw: Draw = () => undefined,
): Pass {
  const sequences = sequencesOf(config, groups);
  const blocks = Array.from({ length: config.depth }, (_, i) =>
    blockOf(config, tensors, `backbone.blocks.${i}`),
  );
  const embedded = embed(config, tensors, groups);
  let x = embedded.x;
  const rows = [x];
  const forwards = blocks.map((block, i) => {
    const forward = blockForward(block, x, sequences, (branch) => draw(i, branch, sequences));
    x = forward.y;
    rows.push(x);
    return { block, input: rows[i] as tf.Tensor2D, saved: forward.saved };
  });
  const all = Array.from({ length: x.shape[0] }, (_, i) => i);
  const normed = output(config, tensors, x, all);
  return {
    rows,
    h: normed.h,
    backward(dh, sums) {
      const down = outputBackward(config, tensors, dh, normed.saved);
      accumulate(sums, down.grads);
      let dx = down.dx;
      for (const { block, input, saved } of forwards.toReversed()) {
        const step = blockBackward(block, dx, input, sequences, saved);
        dx = step.dx;
        accumulate(sums, step.grads);
      }
      accumulate(sums, embedBackward(config, tensors, groups, embedded.saved, dx));
      tf.dispose([dx, ...rows]);
      for (const { patches, mask } of embedded.saved.groups) {
        tf.dispose(mask ? [patches, mask] : [patches]);
      }
    },
  };
}
