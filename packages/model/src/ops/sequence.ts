/**
 * Patch rows to the rows of whole sequences, and back: class token and registers in front, positions added; and mask tokens in the
 * place of patches. Shapes: n sequences of P patches and R registers, N = 1 + R + P rows; D width; B positions of the learned grid.
 */
import * as tf from "@tensorflow/tfjs-core";
import { columnSums, hasFused, runFused } from "./fused.js";

/** What all sequences have in common. */
export interface SequenceParts {
  /** D values. */
  readonly cls: tf.Tensor;
  /** R rows of D; they have no position. */
  readonly registers?: tf.Tensor | undefined;
  /** 1 + B rows of D, the class token's first; absent where positions are not learned. */
  readonly positions?: tf.Tensor | undefined;
  /** [P,B] makes the patches' positions of the grid's; absent where they are the grid's. */
  readonly matrix?: tf.Tensor2D | undefined;
}

/** Rows [n * N, D] of n sequences whose patches [n * P, D] lie one after the other. The caller owns them. */
export function sequenceRows(
  patches: tf.Tensor2D,
  n: number,
  { cls, registers, positions, matrix }: SequenceParts,
): tf.Tensor2D {
  if (hasFused("PaddockSequenceRows")) {
    const inputs = { patches, cls, registers, positions, matrix };
    return runFused("PaddockSequenceRows", inputs, { n })[0] as tf.Tensor2D;
  }
  const width = patches.shape[1];
  return tf.tidy(() => {
    const grid = positions && tf.reshape(positions, [-1, width]);
    const first = tf.reshape(cls, [1, 1, width]);
    const ofCls = grid && tf.reshape(tf.slice(grid, 0, 1), [1, 1, width]);
    const parts = [tf.tile(ofCls ? tf.add(first, ofCls) : first, [n, 1, 1])];
    if (registers) parts.push(tf.tile(tf.reshape(registers, [1, -1, width]), [n, 1, 1]));
    const rows = tf.reshape(patches, [n, -1, width]);
    const base = grid && tf.slice(grid, 1);
    parts.push(base ? tf.add(rows, matrix ? tf.matMul(matrix, base) : base) : rows);
    return tf.reshape(tf.concat(parts, 1), [-1, width]);
  });
}

export interface SequenceGradients {
  /** [n * P, D] */
  readonly dpatches: tf.Tensor2D;
  /** [1,1,D] */
  readonly dcls: tf.Tensor;
  /** [1,R,D], absent without registers. */
  readonly dregisters?: tf.Tensor | undefined;
  /** [1,1 + B,D], absent without learned positions. */
  readonly dpositions?: tf.Tensor | undefined;
}

/** Gradients of `sequenceRows` for d [n * N, D]; the caller owns them. */
export function sequenceRowsBackward(
  d: tf.Tensor2D,
  n: number,
  o: {
    readonly registers: number;
    readonly withPositions: boolean;
    readonly matrix?: tf.Tensor2D | undefined;
  },
): SequenceGradients {
  const { registers, withPositions, matrix } = o;
  if (hasFused("PaddockSequenceRowsBackward")) {
    const outputs = runFused(
      "PaddockSequenceRowsBackward",
      { d, matrix },
      { n, registers, withPositions },
    );
    const dpatches = outputs.shift() as tf.Tensor2D;
    const dcls = outputs.shift() as tf.Tensor;
    const dregisters = registers > 0 ? outputs.shift() : undefined;
    return { dpatches, dcls, dregisters, dpositions: outputs.shift() };
  }
  const width = d.shape[1];
  return tf.tidy(() => {
    const rows = tf.reshape(d, [n, -1, width]) as tf.Tensor3D;
    const sums = tf.sum(rows, 0) as tf.Tensor2D;
    const dcls = tf.slice(sums, 0, 1);
    const dbase = tf.slice(sums, 1 + registers);
    const dgrid = matrix ? tf.matMul(tf.transpose(matrix), dbase) : dbase;
    return {
      dpatches: tf.reshape(tf.slice(rows, [0, 1 + registers, 0]), [-1, width]) as tf.Tensor2D,
      dcls: tf.reshape(dcls, [1, 1, width]),
      dregisters:
        registers > 0 ? tf.reshape(tf.slice(sums, 1, registers), [1, registers, width]) : undefined,
      dpositions: withPositions ? tf.reshape(tf.concat([dcls, dgrid]), [1, -1, width]) : undefined,
    };
  });
}

/** x [M,D] with the token (D values) in the rows where mask [M,1] is 1, not 0. The caller owns it. */
export function maskRows(x: tf.Tensor2D, mask: tf.Tensor2D, token: tf.Tensor2D): tf.Tensor2D {
  if (hasFused("PaddockMaskRows")) {
    return runFused("PaddockMaskRows", { x, mask, token })[0] as tf.Tensor2D;
  }
  return tf.tidy(() => tf.add(tf.mul(x, tf.sub(1, mask)), tf.mul(mask, token)));
}

/** Gradients of `maskRows` for d [M,D]; the caller owns them. */
export function maskRowsBackward(
  d: tf.Tensor2D,
  mask: tf.Tensor2D,
): { readonly dx: tf.Tensor2D; readonly dtoken: tf.Tensor2D } {
  if (hasFused("PaddockMaskRowsBackward")) {
    const [dx, dtoken] = runFused("PaddockMaskRowsBackward", { d, mask });
    return { dx: dx as tf.Tensor2D, dtoken: dtoken as tf.Tensor2D };
  }
  return tf.tidy(() => ({
    dx: tf.mul(d, tf.sub(1, mask)),
    dtoken: tf.reshape(columnSums(tf.mul(d, mask)), [1, -1]) as tf.Tensor2D,
  }));
}
