/**
 * From images to token rows: patchify and project, mask tokens, position encoding, cls and registers.
 * Shapes: n crops of a group, P patches of a crop, R registers, N = 1 + R + P rows of a sequence, D width.
 */
import { invariant } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import type { SequenceGroup } from "../ops/attention.js";
import { linear, linearBackward } from "../ops/linear.js";
import { maskRows, maskRowsBackward, sequenceRows, sequenceRowsBackward } from "../ops/sequence.js";
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
      const learned = config.rope ? {} : { positions: positionsOf(tensors) };
      return sequenceRows(projectPatches(tensors, patches, mask), group.count, {
        cls: parameterOf(tensors, "backbone.cls_token"),
        registers: optionalParameter(tensors, "backbone.register_tokens"),
        ...learned,
        matrix: positionMatrix(config, patchGrid(config, group)),
      });
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
      const d = tf.slice(dx, [start, 0], [count * length, -1]);
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
  return maskRows(x, mask, parameterOf(tensors, "backbone.mask_token"));
}

function projection(tensors: UnitTensors): tf.Tensor2D {
  return parameterOf(tensors, "backbone.patch_embed.proj.weight");
}

function positionsOf(tensors: UnitTensors): tf.Tensor {
  return parameterOf(tensors, "backbone.pos_embed");
}

/** Position encoding of a grid as `embed` adds it: cls [1,D], patches [P,D]. The caller owns both. */
export function positionEncoding(
  config: VitConfig,
  tensors: UnitTensors,
  grid: Grid,
): { readonly cls: tf.Tensor2D; readonly patch: tf.Tensor2D } {
  return tf.tidy(() => {
    const rows = sequenceRows(tf.zeros([grid.height * grid.width, config.width]), 1, {
      cls: tf.zeros([config.width]),
      positions: positionsOf(tensors),
      matrix: positionMatrix(config, grid),
    });
    return { cls: tf.slice(rows, 0, 1), patch: tf.slice(rows, 1) };
  });
}

/** The matrices of the few crop sizes that a run has: every rank of every step asks for the same. */
const matrices = new Map<string, Float32Array | undefined>();

/** Undefined for the grid that positions are learned for, and where they are not learned. */
function positionMatrix(config: VitConfig, grid: Grid): tf.Tensor2D | undefined {
  if (config.rope) return undefined;
  const { gridSide: side, interpolateOffset: offset, interpolateAntialias: antialias } = config;
  const key = `${side} ${grid.height} ${grid.width} ${offset} ${antialias}`;
  if (!matrices.has(key)) matrices.set(key, interpolationMatrix(side, grid, { offset, antialias }));
  const matrix = matrices.get(key);
  return matrix && tf.tensor2d(matrix, [grid.height * grid.width, side ** 2]);
}

/** For the rows d [n * N, D] of a group. */
function groupGradients(
  config: VitConfig,
  tensors: UnitTensors,
  group: CropGroup,
  { patches, mask }: EmbedSaved["groups"][number],
  d: tf.Tensor2D,
): Grads {
  const { dpatches, dcls, dregisters, dpositions } = sequenceRowsBackward(d, group.count, {
    registers: config.registers,
    withPositions: !config.rope,
    matrix: positionMatrix(config, patchGrid(config, group)),
  });
  const grads: Grads = { "backbone.cls_token": dcls };
  if (dpositions) grads["backbone.pos_embed"] = dpositions;
  if (dregisters) grads["backbone.register_tokens"] = dregisters;
  const masked = mask && maskRowsBackward(dpatches, mask);
  if (masked) grads["backbone.mask_token"] = masked.dtoken;
  const o = { needDx: false, hasBias: true };
  const { dw, db } = linearBackward(masked?.dx ?? dpatches, patches, projection(tensors), o);
  grads["backbone.patch_embed.proj.weight"] = dw;
  if (db) grads["backbone.patch_embed.proj.bias"] = db;
  return grads;
}
