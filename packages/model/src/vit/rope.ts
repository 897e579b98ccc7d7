/**
 * Tables of the rotary position encoding (dinov3 layers/rope_position_encoding.py): the centre of a patch has coordinates in
 * [-1, 1] (of the shorter or longer side, or of each); half of the angles of a head follow the row, half the column, each at a
 * geometric series of periods. In training the coordinates are shifted, stretched per axis, and scaled together.
 * With dtype bf16 every operation is rounded to bfloat16, as the official default does.
 */
import { type RopeSpec, rngOf, streams } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { roundToBfloat16 } from "../ops/bfloat16.js";
import type { Rotation } from "../ops/rope.js";
import type { VitConfig } from "./config.js";
import type { Grid } from "./interpolation.js";

/** What happens to the coordinates of one block and crop group: added, then multiplied by exp of the rest. Axes are height, width. */
export interface RopeDraw {
  readonly shift: readonly [number, number];
  readonly logJitter: readonly [number, number];
  readonly logRescale: number;
}

/** Where coordinates are changed: group 0 is global crops, 1 local. Shared by a group's crops. */
export interface RopeKey {
  readonly rank: number;
  readonly block: number;
  readonly group: number;
}

export type DrawRope = (key: RopeKey) => RopeDraw;

/** The draws of a run: a pure function of seed, step and key. */
export function drawRopeOf(rope: RopeSpec, seed: number, step: number): DrawRope {
  return ({ rank, block, group }) => {
    const rng = rngOf(seed, streams.rope, step, rank, block, group);
    const within = (limit: number) => rng.between(-limit, limit);
    const shift = rope.shift ?? 0;
    const jitter = Math.log(rope.jitter ?? 1);
    return {
      shift: [within(shift), within(shift)],
      logJitter: [within(jitter), within(jitter)],
      logRescale: within(Math.log(rope.rescale ?? 1)),
    };
  };
}

/** Whether training changes coordinates at all. */
export function isAugmented(rope: RopeSpec | null): boolean {
  return rope !== null && [rope.shift, rope.jitter, rope.rescale].some((limit) => limit !== null);
}

/**
 * The rotation of packed sequences whose groups have these patch grids, or undefined for a model without rotary positions. `draw`
 * is asked once per group. The caller disposes the tables.
 */
export function rotationOf(
  config: VitConfig,
  grids: readonly Grid[],
  draw?: (group: number) => RopeDraw,
): Rotation | undefined {
  const { rope, width, heads, registers } = config;
  if (!rope) return undefined;
  const half = width / heads / 2;
  const tables = grids.map((grid, group) => ropeTables(rope, width / heads, grid, draw?.(group)));
  const joined = (name: "cos" | "sin"): tf.Tensor2D => {
    const parts = tables.map((table) => table[name]);
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let start = 0;
    for (const part of parts) {
      all.set(part, start);
      start += part.length;
    }
    return tf.tensor2d(all, [all.length / half, half]);
  };
  return { cos: joined("cos"), sin: joined("sin"), prefix: 1 + registers, dtype: rope.dtype };
}

export function disposeRotation(rotation: Rotation | undefined): void {
  if (rotation) tf.dispose([rotation.cos, rotation.sin]);
}

/** Periods of a head, in coordinate units: [d/4]. */
export function ropePeriods(rope: RopeSpec, headWidth: number): Float32Array {
  const r = rounding(rope);
  const count = headWidth / 4;
  const { base, minPeriod, maxPeriod } = rope;
  if (base !== null) {
    const exponent = (i: number) => r(r(2 * i) / (headWidth / 2));
    return Float32Array.from({ length: count }, (_, i) => r(r(base) ** exponent(i)));
  }
  if (minPeriod === null || maxPeriod === null) {
    throw new RangeError("rotary positions: expected a base, or minPeriod and maxPeriod");
  }
  const ratio = maxPeriod / minPeriod;
  const exponents = zeroToOne(count, r);
  return Float32Array.from(exponents, (exponent) =>
    r(r(r(r(ratio) ** exponent) / r(ratio)) * r(maxPeriod)),
  );
}

/** torch.linspace: from both ends to the middle by a rounded step. */
function zeroToOne(count: number, r: (x: number) => number): number[] {
  const step = count > 1 ? r(1 / (count - 1)) : 0;
  return Array.from({ length: count }, (_, i) =>
    i < Math.floor(count / 2) || count === 1 ? r(step * i) : r(1 - r(step * (count - i - 1))),
  );
}

/** Cosines and sines [grid.height * grid.width, headWidth / 2]: first the row's angles, then the column's. */
export function ropeTables(
  rope: RopeSpec,
  headWidth: number,
  grid: Grid,
  draw?: RopeDraw,
): { readonly cos: Float32Array; readonly sin: Float32Array } {
  const periods = ropePeriods(rope, headWidth);
  const anglesOf = (axis: 0 | 1) => axisAngles(rope, periods, grid, axis, draw);
  const [vertical, horizontal] = [anglesOf(0), anglesOf(1)];
  const table = (of: (angle: number) => number): Float32Array => {
    const [rows, columns] = [vertical.map(of), horizontal.map(of)];
    const quarter = periods.length;
    const all = new Float32Array(grid.height * grid.width * 2 * quarter);
    for (let y = 0, at = 0; y < grid.height; y++) {
      for (let x = 0; x < grid.width; x++, at += 2 * quarter) {
        all.set(rows.subarray(y * quarter, (y + 1) * quarter), at);
        all.set(columns.subarray(x * quarter, (x + 1) * quarter), at + quarter);
      }
    }
    return all;
  };
  const r = rounding(rope);
  return { cos: table((angle) => r(Math.cos(angle))), sin: table((angle) => r(Math.sin(angle))) };
}

/** Angles [side, d/4] of one axis. */
function axisAngles(
  rope: RopeSpec,
  periods: Float32Array,
  grid: Grid,
  axis: 0 | 1,
  draw: RopeDraw | undefined,
): Float64Array {
  const r = rounding(rope);
  const side = axis === 0 ? grid.height : grid.width;
  const longest = Math.max(grid.height, grid.width);
  const shortest = Math.min(grid.height, grid.width);
  const over = { separate: side, max: longest, min: shortest }[rope.normalize];
  const angles = new Float64Array(side * periods.length);
  for (let i = 0; i < side; i++) {
    let coordinate = r(r(2 * r(r(i + 0.5) / over)) - 1);
    if (draw) coordinate = moved(coordinate, draw, axis, r);
    for (const [k, period] of periods.entries()) {
      angles[i * periods.length + k] = r(r(r(2 * Math.PI) * coordinate) / period);
    }
  }
  return angles;
}

function moved(
  coordinate: number,
  { shift, logJitter, logRescale }: RopeDraw,
  axis: 0 | 1,
  r: (x: number) => number,
): number {
  const shifted = r(coordinate + r(shift[axis]));
  const jittered = r(shifted * r(Math.exp(r(logJitter[axis]))));
  return r(jittered * r(Math.exp(r(logRescale))));
}

/** What every operation on coordinates ends with: nothing, in doubles, or rounding to bfloat16. */
function rounding({ dtype }: RopeSpec): (x: number) => number {
  return dtype === "bf16" ? roundToBfloat16 : (x) => x;
}
