/**
 * From images to token rows: patchify and project, mask tokens, position encoding, cls and registers.
 * Shapes: n crops of a group, P patches of a crop, R registers, N = 1 + R + P rows of a sequence, D width.
 */
import { invariant } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import { linear, linearBackward } from "../ops/linear.js";
import { optionalParameter, parameterOf, type UnitTensors } from "../tensors.js";
import type { VitConfig } from "./config.js";
import { type Grid, interpolationMatrix } from "./interpolation.js";
import { addGrads, type Grads } from "./layers.js";

/** Crops of one size. */
export interface CropGroup {
  /** [n,H,W,C] normalised pixels, crop-major. */
  readonly pixels: Float32Array;
  readonly count: number;
  /** Pixels; multiples of the patch size. */
  readonly height: number;
  readonly width: number;
  /** Flat patch indices i * P + p to replace by the mask token, if any. */
  readonly maskRows?: Int32Array;
  /** `patchify` of the crops, where it has been done before; `embed` takes it into what it saves. */
  readonly patches?: tf.Tensor2D;
}

/** What `embedBackward` needs; disposed by whoever holds it. */
export interface EmbedSaved {
  readonly groups: readonly { readonly patches: tf.Tensor2D; readonly mask?: tf.Tensor2D }[];
}

/** The packed sequences of crop groups: what attention sees. */
export function sequencesOf(config: VitConfig, groups: readonly CropGroup[]): SequenceGroup[] {
  return groups.map((group) => {
    const { height, width } = patchGrid(config, group);
    return { count: group.count, length: 1 + config.registers + height * width };
  });
}

/** Patches of a group's crops, vertically and horizontally. */
export function patchGrid(
  config: Pick<VitConfig, "patchSize">,
  group: Pick<CropGroup, "height" | "width">,
): Grid {
  const grid = { height: group.height / config.patchSize, width: group.width / config.patchSize };
  invariant(
    Number.isInteger(grid.height) && Number.isInteger(grid.width),
    `crop of ${group.height} x ${group.width} pixels is no multiple of the patch size ${config.patchSize}`,
  );
  return grid;
}

/** Token rows [T,D] of all groups, packed one after the other. The caller owns both outputs. */
export function embed(
  config: VitConfig,
  tensors: UnitTensors,
  groups: readonly CropGroup[],
): { readonly x: tf.Tensor2D; readonly saved: EmbedSaved } {
  return tf.tidy(() => {
    const saved = groups.map((group) => {
      const patches = group.patches ?? patchify(config, group);
      const mask = group.maskRows?.length
        ? { mask: maskColumn(group.maskRows, patches.shape[0]) }
        : {};
      return { patches, ...mask };
    });
    const rows = saved.map(({ patches, mask }, i) => {
      const group = groups[i] as CropGroup;
      return sequenceRows(config, tensors, group, projectPatches(tensors, patches, mask));
    });
    return { x: tf.concat(rows) as tf.Tensor2D, saved: { groups: saved } };
  });
}

/** Gradients of the embedding for dx [T,D]; leaves dx to the caller. */
export function embedBackward(
  config: VitConfig,
  tensors: UnitTensors,
  groups: readonly CropGroup[],
  saved: EmbedSaved,
  dx: tf.Tensor2D,
): Grads {
  let rowStart = 0;
  const sequences = sequencesOf(config, groups);
  const perGroup = saved.groups.map((inputs, i) => {
    const { count, length } = sequences[i] as SequenceGroup;
    const start = rowStart;
    rowStart += count * length;
    return tf.tidy(() => {
      const rows = tf.slice(dx, [start, 0], [count * length, -1]);
      const d = tf.reshape(rows, [count, length, config.width]) as tf.Tensor3D;
      return groupGradients(config, tensors, groups[i] as CropGroup, inputs, d);
    });
  });
  const sum: Grads = {};
  for (const grads of perGroup) addGrads(sum, grads);
  return sum;
}

/** The crops' patches [n * P, C * p * p] in the order of a convolution's weight (channel, row, column). */
export function patchify(config: VitConfig, group: CropGroup): tf.Tensor2D {
  const { patchSize: p } = config;
  const { height, width } = patchGrid(config, group);
  const channels = group.pixels.length / (group.count * group.height * group.width);
  invariant(Number.isInteger(channels) && channels > 0, "pixels do not fill the crops");
  return tf.tidy(() => {
    const split = tf.tensor(group.pixels, [group.count * height, p, width, p, channels]);
    const patches = tf.transpose(split, [0, 2, 4, 1, 3]);
    return tf.reshape(patches, [group.count * height * width, channels * p * p]);
  });
}

/** [rows,1] with 1 at the masked patches. */
function maskColumn(maskRows: Int32Array, rows: number): tf.Tensor2D {
  const mask = new Float32Array(rows);
  for (const row of maskRows) mask[row] = 1;
  return tf.tensor2d(mask, [rows, 1]);
}

function projectPatches(
  tensors: UnitTensors,
  patches: tf.Tensor2D,
  mask: tf.Tensor2D | undefined,
): tf.Tensor2D {
  const bias = parameterOf<tf.Tensor1D>(tensors, "backbone.patch_embed.proj.bias");
  const x = linear(patches, projection(tensors), bias);
  if (!mask) return x;
  const token = parameterOf<tf.Tensor2D>(tensors, "backbone.mask_token");
  return tf.add(tf.mul(x, tf.sub(1, mask)), tf.matMul(mask, token));
}

function projection(tensors: UnitTensors): tf.Tensor2D {
  return parameterOf(tensors, "backbone.patch_embed.proj.weight");
}

/** Adds positions if they are learned, puts cls and registers in front: [n * N, D]. Registers have no position. */
function sequenceRows(
  config: VitConfig,
  tensors: UnitTensors,
  group: CropGroup,
  patches: tf.Tensor2D,
): tf.Tensor2D {
  const n = group.count;
  const positions = config.rope
    ? undefined
    : positionEncoding(config, tensors, patchGrid(config, group));
  const clsToken = parameterOf<tf.Tensor3D>(tensors, "backbone.cls_token");
  const registers = optionalParameter<tf.Tensor3D>(tensors, "backbone.register_tokens");
  const first = positions ? tf.add(clsToken, tf.reshape(positions.cls, [1, 1, -1])) : clsToken;
  const parts = [tf.tile(first, [n, 1, 1])];
  if (registers) parts.push(tf.tile(registers, [n, 1, 1]));
  const rows = tf.reshape(patches, [n, -1, config.width]);
  parts.push(positions ? tf.add(rows, positions.patch) : rows);
  return tf.reshape(tf.concat(parts, 1), [-1, config.width]);
}

/** Position encoding of a grid: cls [1,D], patches [P,D]. */
export function positionEncoding(
  config: VitConfig,
  tensors: UnitTensors,
  grid: Grid,
): { readonly cls: tf.Tensor2D; readonly patch: tf.Tensor2D } {
  return tf.tidy(() => {
    const all = tf.reshape(parameterOf(tensors, "backbone.pos_embed"), [-1, config.width]);
    const base = config.gridSide ** 2;
    const patch = tf.slice(all, [1, 0], [base, -1]) as tf.Tensor2D;
    const matrix = positionMatrix(config, grid);
    return {
      cls: tf.slice(all, [0, 0], [1, -1]) as tf.Tensor2D,
      patch: matrix ? tf.matMul(matrix, patch) : patch,
    };
  });
}

function positionMatrix(config: VitConfig, grid: Grid): tf.Tensor2D | undefined {
  const matrix = interpolationMatrix(config.gridSide, grid, {
    offset: config.interpolateOffset,
    antialias: config.interpolateAntialias,
  });
  return matrix && tf.tensor2d(matrix, [grid.height * grid.width, config.gridSide ** 2]);
}

function groupGradients(
  config: VitConfig,
  tensors: UnitTensors,
  group: CropGroup,
  { patches, mask }: EmbedSaved["groups"][number],
  d: tf.Tensor3D,
): Grads {
  const [n, , width] = d.shape;
  const { registers } = config;
  const perSequence = tf.sum(d, 0) as tf.Tensor2D;
  const dcls = tf.slice(perSequence, [0, 0], [1, -1]);
  const grads: Grads = { "backbone.cls_token": tf.reshape(dcls, [1, 1, width]) };
  if (!config.rope) {
    const dpatchPositions = tf.slice(perSequence, [1 + registers, 0]) as tf.Tensor2D;
    const matrix = positionMatrix(config, patchGrid(config, group));
    const dbase = matrix ? tf.matMul(tf.transpose(matrix), dpatchPositions) : dpatchPositions;
    grads["backbone.pos_embed"] = tf.reshape(tf.concat([dcls, dbase]), [1, -1, width]);
  }
  if (registers > 0) {
    const dregisters = tf.slice(perSequence, [1, 0], [registers, -1]);
    grads["backbone.register_tokens"] = tf.reshape(dregisters, [1, registers, width]);
  }
  const dpatchRows = tf.slice(d, [0, 1 + registers, 0], [n, -1, -1]);
  let dpatches = tf.reshape(dpatchRows, [-1, width]) as tf.Tensor2D;
  if (mask) {
    grads["backbone.mask_token"] = tf.matMul(tf.transpose(mask), dpatches);
    dpatches = tf.mul(dpatches, tf.sub(1, mask));
  }
  const o = { needDx: false, hasBias: true };
  const { dw, db } = linearBackward(dpatches, patches, projection(tensors), o);
  grads["backbone.patch_embed.proj.weight"] = dw;
  if (db) grads["backbone.patch_embed.proj.bias"] = db;
  return grads;
}
