/**
 * Gram loss: the similarities of the student's patches are held close to those of an earlier teacher (dinov3 loss/gram_loss.py;
 * arXiv 2508.10104, section 4). Shapes: B images, P patches of each, R = B P rows, D width.
 */
import { type GramSpec, invariant } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { batchMatMul } from "../ops/batch-mat-mul.js";
import { l2Normalize, l2NormalizeBackward, type Normalized } from "../ops/l2-normalize.js";
import { interpolationMatrix } from "../vit/interpolation.js";

/** torch.nn.functional.normalize. */
const normalizeEps = 1e-12;

/** Similarities held at once, of student and teacher each: 32 MiB. */
const similaritiesPerBlock = 2 ** 23;

export type GramOptions = Pick<GramSpec, "normalized" | "imageLevel" | "negatives">;

export interface GramOutput<T extends tf.Tensor> {
  /** Mean squared difference of similarities, not weighted; 0 without patches. */
  readonly loss: tf.Scalar;
  /** Gradient of weight * loss by the student's patches, in their shape. */
  readonly dx: T;
}

/**
 * @param student, teacher [B,P,D]; without `imageLevel` also [R,D]: similarities are then among all rows. The caller owns inputs
 * and outputs. Similarities lie in memory block by block, each with its part of the gradient: a batch of large images has billions.
 */
export function gramLoss<T extends tf.Tensor2D | tf.Tensor3D>(
  student: T,
  teacher: T,
  options: GramOptions,
  weight: number,
  perBlock = similaritiesPerBlock,
): GramOutput<T> {
  const { shape } = student;
  const width = shape.at(-1) as number;
  const rows = student.size / width;
  invariant(
    !options.imageLevel || shape.length === 3,
    "similarities within images need patches by image",
  );
  const images = options.imageLevel ? (shape[0] as number) : 1;
  return tf.tidy(() => {
    if (rows === 0) return { loss: tf.scalar(0), dx: tf.zerosLike(student) };
    const ours = rowsOf(student, options.normalized);
    const theirs = rowsOf(teacher, options.normalized);
    const sides: [tf.Tensor3D, tf.Tensor3D] = [
      tf.reshape(ours.y, [images, rows / images, width]),
      tf.reshape(theirs.y, [images, rows / images, width]),
    ];
    const similarities = images * (rows / images) ** 2;
    let sum: tf.Tensor = tf.scalar(0);
    const pieces = blocksOf(images, rows / images, perBlock).map((block) => {
      const [piece, squares] = blockGradient(sides, block, options.negatives);
      sum = tf.add(sum, squares);
      return piece;
    });
    // The matrix of differences is symmetric: each row of it counts twice, as a row and as a column.
    const dunit = tf.mul(tf.concat(pieces), (4 * weight) / similarities) as tf.Tensor2D;
    const dx = options.normalized ? l2NormalizeBackward(dunit, ours) : dunit;
    return { loss: tf.div(sum, similarities) as tf.Scalar, dx: tf.reshape(dx, shape) as T };
  });
}

/** As rows [R,D], normalised if asked for. */
function rowsOf(patches: tf.Tensor2D | tf.Tensor3D, normalized: boolean): Normalized {
  const x: tf.Tensor2D = tf.reshape(patches, [-1, patches.shape.at(-1) as number]);
  return normalized ? l2Normalize(x, normalizeEps) : { y: x, norm: tf.ones([x.shape[0]]) };
}

interface Block {
  readonly image: number;
  readonly images: number;
  readonly row: number;
  readonly rows: number;
}

/** All similarities in blocks: of several images, or of some rows of one image. */
function blocksOf(images: number, rows: number, perBlock: number): Block[] {
  const imagesAtOnce = Math.max(1, Math.floor(perBlock / rows ** 2));
  const rowsAtOnce = Math.min(rows, Math.max(1, Math.floor(perBlock / rows)));
  const blocks: Block[] = [];
  for (let image = 0; image < images; image += imagesAtOnce) {
    for (let row = 0; row < rows; row += rowsAtOnce) {
      const count = Math.min(imagesAtOnce, images - image);
      blocks.push({ image, images: count, row, rows: Math.min(rowsAtOnce, rows - row) });
    }
  }
  return blocks;
}

/** differences x student rows [block rows, D], and the sum of the squared differences. */
function blockGradient(
  sides: readonly [student: tf.Tensor3D, teacher: tf.Tensor3D],
  { image, images, row, rows }: Block,
  negatives: GramOptions["negatives"],
): [tf.Tensor2D, tf.Scalar] {
  return tf.tidy(() => {
    const whole = sides.map((side) => tf.slice(side, [image, 0, 0], [images, -1, -1]));
    const [student, teacher] = whole as [tf.Tensor3D, tf.Tensor3D];
    const similaritiesOf = (side: tf.Tensor3D): tf.Tensor3D =>
      batchMatMul(
        tf.slice(side, [0, row, 0], [-1, rows, -1]),
        tf.transpose(side, [0, 2, 1]) as tf.Tensor3D,
      );
    const ours = similaritiesOf(student);
    const theirs = similaritiesOf(teacher);
    // remove-teacher removes none of the student's: the official code tests the teacher's for negatives after removing them.
    const target = negatives === "keep" ? theirs : tf.relu(theirs);
    const removes = negatives === "remove";
    const difference = tf.sub(removes ? tf.relu(ours) : ours, target);
    const squares = tf.sum(tf.sum(tf.square(difference), -1)) as tf.Scalar;
    const passed = removes
      ? tf.mul(difference, tf.cast(tf.greaterEqual(ours, 0), "float32"))
      : difference;
    const piece = batchMatMul(passed as tf.Tensor3D, student);
    return [tf.reshape(piece, [-1, student.shape[2]]) as tf.Tensor2D, squares];
  });
}

/**
 * Flat indices i * P + p of the patches of the global crops that take part, ascending; null: all.
 * @param maskRows flat indices of the masked patches, ascending @param patches of all crops together
 */
export function gramPatches(
  tokens: GramSpec["tokens"],
  maskRows: Int32Array,
  patches: number,
): Int32Array | null {
  if (tokens === "all") return null;
  if (tokens === "masked") return maskRows;
  const masked = new Set(maskRows);
  return Int32Array.from({ length: patches }, (_, row) => row).filter((row) => !masked.has(row));
}

/** Patches [B, side^2, D] of a square grid brought to a grid of `target`^2; a new tensor. */
export function resizePatches(
  patches: tf.Tensor3D,
  side: number,
  target: number,
  { resize, antialias }: Pick<GramSpec, "resize" | "antialias">,
): tf.Tensor3D {
  const [images, count, width] = patches.shape;
  invariant(count === side * side, `expected ${side} x ${side} patches, received ${count}`);
  const grid = { height: target, width: target };
  const matrix = interpolationMatrix(side, grid, { offset: 0, antialias, method: resize });
  if (!matrix) return tf.clone(patches);
  return tf.tidy(() => {
    const columns = tf.reshape(tf.transpose(patches, [1, 0, 2]), [count, images * width]);
    const resized = tf.matMul(tf.tensor2d(matrix, [target * target, count]), columns);
    return tf.transpose(tf.reshape(resized, [target * target, images, width]), [1, 0, 2]);
  });
}
