/** A file of weights once more with official names, its learned positions resampled to another grid if that is wanted. */
import {
  type BackboneShape,
  configFiles,
  dialectFor,
  gridSide,
  type ImportPlan,
  PaddockError,
  type RunSpec,
} from "@paddock/contract";
import { interpolationMatrix } from "@paddock/model";
import { ownSpec } from "./describe-weights.js";
import { namedTensor, type ReadParameter } from "./foreign-values.js";
import { checkedPlan } from "./load-backbone.js";
import { openWeights, type WeightsFile } from "./weights-file.js";
import { writeWeights } from "./write-weights.js";

export interface ConvertOptions {
  readonly path: string;
  /** Folder to make. */
  readonly out: string;
  readonly force: boolean;
  /** Side of the new position grid, in patches; undefined: as it is. */
  readonly grid: number | undefined;
}

const positions = "backbone.pos_embed";

/** Errors: those of `describeWeights`, `already-exists`, `disk-unavailable`. */
export async function convertWeights({ path, out, force, grid }: ConvertOptions): Promise<void> {
  const file = await openWeights(path);
  try {
    const { spec } = ownSpec(file);
    const { detected, plan } = await checkedPlan(file, spec);
    const shape = { ...detected.shape, gridSide: grid ?? gridSide(spec) };
    if (grid !== undefined && shape.positions === "rope") {
      throw new PaddockError(
        "invalid-argument",
        `--grid: expected learned positions in ${path}, received rotary ones, which fit any size; leave it out`,
      );
    }
    const dialect = dialectFor("official", shape);
    const read = readerOf(file, plan);
    const resampled = new Map<string, Float32Array>();
    if (grid !== undefined) resampled.set(positions, await resample(read, detected.shape, grid));
    const readNew: ReadParameter = async (parameter, first, elements) =>
      resampled.get(parameter)?.subarray(first, first + elements) ??
      read(parameter, first, elements);
    const written = dialect
      .tensors(shape)
      .filter(
        ({ copies, presence }) =>
          presence === "always" || copies.every(({ parameter }) => plan.pieces.has(parameter)),
      );
    await writeWeights({
      out,
      force,
      tensors: written.map((tensor) => namedTensor(tensor, spec.model.rope, readNew)),
      metadata: { format: "pt" },
      files: configFiles(dialect, shape, factsOf(spec, shape)),
    });
  } finally {
    await file.close();
  }
}

function factsOf(spec: RunSpec, shape: BackboneShape) {
  const imageSize = shape.gridSide * shape.patchSize;
  return { ...spec.model, imageSize, mean: spec.crops.mean, std: spec.crops.std };
}

/** Parameters out of the file; zero where it has no values for a part of one. */
function readerOf(file: WeightsFile, plan: ImportPlan): ReadParameter {
  return async (parameter, first, elements) => {
    const values = new Float32Array(elements);
    for (const piece of plan.pieces.get(parameter) ?? []) {
      const start = Math.max(first, piece.first);
      const end = Math.min(first + elements, piece.first + piece.elements);
      if (start >= end) continue;
      const part = await file.read(piece.tensor, piece.at + start - piece.first, end - start);
      values.set(part, start - first);
    }
    return values;
  };
}

/** [(grid^2 + 1) D]: bicubic to the exact size with antialiasing, as timm does when it loads weights of another size. */
async function resample(
  read: ReadParameter,
  { width: D, gridSide: side }: BackboneShape,
  grid: number,
): Promise<Float32Array> {
  const base = side * side;
  const old = await read(positions, 0, (base + 1) * D);
  const matrix = interpolationMatrix(
    side,
    { height: grid, width: grid },
    { offset: 0, antialias: true },
  );
  if (!matrix) return old;
  const values = new Float32Array((grid * grid + 1) * D);
  values.set(old.subarray(0, D));
  const sums = new Float64Array(D);
  for (let p = 0; p < grid * grid; p++) {
    sums.fill(0);
    for (let q = 0; q < base; q++) {
      const weight = matrix[p * base + q] as number;
      if (weight === 0) continue;
      for (let d = 0; d < D; d++)
        sums[d] = (sums[d] as number) + weight * (old[(q + 1) * D + d] as number);
    }
    values.set(sums, (p + 1) * D);
  }
  return values;
}
