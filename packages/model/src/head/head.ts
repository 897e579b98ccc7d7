/**
 * Projection head: MLP, L2 norm, weight-normalised prototypes (dinov2 layers/dino_head.py).
 * Shapes: N rows, D width, B bottleneck, K prototypes, M targets.
 */
import * as tf from "@tensorflow/tfjs-core";
import { crossEntropy } from "../ops/cross-entropy.js";
import { gelu, geluBackward } from "../ops/gelu.js";
import { l2Normalize, l2NormalizeBackward, type Normalized } from "../ops/l2-normalize.js";
import { linear, linearBackward } from "../ops/linear.js";
import { type WeightNormOutput, weightNorm, weightNormBackward } from "../ops/weight-norm.js";
import { parameterOf, type UnitTensors } from "../tensors.js";
import {
  applyLinear,
  backLinear,
  type Grads,
  type LinearLayer,
  linearLayer,
} from "../vit/layers.js";

/** torch.nn.functional.normalize in fp32. */
const normalizeEps = 1e-12;

/** Scores held at once, so that memory does not grow with rows x prototypes: 32 MiB each of scores and gradient. */
const scoresPerChunk = 2 ** 23;

export interface Head {
  readonly mlp: readonly LinearLayer[];
  /** Parameter names and values of the prototypes: magnitude g [K,1], direction v [K,B]. */
  readonly name: string;
  readonly g: tf.Tensor2D;
  readonly v: tf.Tensor2D;
}

/** The head whose parameters are `<prefix>.mlp...` and `<prefix>.last_layer...`. */
export function headOf(tensors: UnitTensors, prefix: string): Head {
  const names = Object.keys(tensors)
    .filter((name) => name.startsWith(`${prefix}.mlp.`) && name.endsWith(".weight"))
    .map((name) => name.slice(0, -".weight".length))
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return {
    mlp: names.map((name) => linearLayer(tensors, name)),
    name: `${prefix}.last_layer`,
    g: parameterOf(tensors, `${prefix}.last_layer.weight_g`),
    v: parameterOf(tensors, `${prefix}.last_layer.weight_v`),
  };
}

/** Activations of `bottleneck` for its backward. */
export interface BottleneckSaved {
  /** Input of each MLP layer; the first is the head's input, not owned. */
  readonly inputs: readonly tf.Tensor2D[];
  /** Output of each MLP layer but the last, before GELU. */
  readonly before: readonly tf.Tensor2D[];
  readonly unit: Normalized;
}

/** Unit rows z [N,B] (`saved.unit.y`) from h [N,D]. The caller owns the output but for h. */
export function bottleneck(head: Head, h: tf.Tensor2D): BottleneckSaved {
  const inputs = [h];
  const before: tf.Tensor2D[] = [];
  let x = h;
  for (const [i, layer] of head.mlp.entries()) {
    const y = applyLinear(layer, x);
    if (i === head.mlp.length - 1) {
      const unit = l2Normalize(y, normalizeEps);
      y.dispose();
      return { inputs, before, unit };
    }
    before.push(y);
    x = gelu(y);
    inputs.push(x);
  }
  throw new RangeError("a head has at least one layer");
}

/** dh [N,D] for dz [N,B]; parameter gradients go into `grads`. Disposes dz and `saved`, leaves h to the caller. */
export function bottleneckBackward(
  head: Head,
  dz: tf.Tensor2D,
  saved: BottleneckSaved,
  grads: Grads,
): tf.Tensor2D {
  let d = l2NormalizeBackward(dz, saved.unit);
  tf.dispose([dz, saved.unit.y, saved.unit.norm]);
  for (let i = head.mlp.length - 1; i >= 0; i--) {
    const input = saved.inputs[i] as tf.Tensor2D;
    const dinput = backLinear(head.mlp[i] as LinearLayer, d, input, grads);
    d.dispose();
    d = dinput;
    if (i > 0) {
      const before = saved.before[i - 1] as tf.Tensor2D;
      d = geluBackward(dinput, before);
      tf.dispose([dinput, before, input]);
    }
  }
  return d;
}

/** Disposes a bottleneck that no backward follows; h stays. */
export function disposeBottleneck(saved: BottleneckSaved): void {
  tf.dispose([saved.unit.y, saved.unit.norm, ...saved.before, ...saved.inputs.slice(1)]);
}

/** The scores [N,K] of the head for h [N,D], without backward. */
export function headScores(head: Head, h: tf.Tensor2D): tf.Tensor2D {
  const saved = bottleneck(head, h);
  const scores = tf.tidy(() => linear(saved.unit.y, weightNorm(head.g, head.v).w));
  disposeBottleneck(saved);
  return scores;
}

/** A run of consecutive rows and what they are to predict. */
export interface ScoreTargets {
  readonly count: number;
  /** [M,K] */
  readonly target: tf.Tensor2D;
  /** [count] row of `target` for each row. */
  readonly index: Int32Array;
  /** [count] factor of each row's loss. */
  readonly weight: Float32Array;
}

/** What a head's loss and backward give. The caller owns all tensors. */
export interface HeadLoss {
  /** Weighted cross-entropy of each row, one tensor per run of rows (empty runs have none). */
  readonly rows: readonly (tf.Tensor1D | undefined)[];
  /** [N,D] */
  readonly dh: tf.Tensor2D;
  readonly grads: Grads;
}

/**
 * Scores, loss and backward of a head in one go, in chunks of rows: the scores of all rows are never held together.
 * @param h [N,D], left to the caller @param targets tile the rows in order
 */
export function headLoss(
  head: Head,
  h: tf.Tensor2D,
  targets: readonly ScoreTargets[],
  temperature: number,
): HeadLoss {
  const grads: Grads = {};
  const saved = bottleneck(head, h);
  const prototypes = weightNorm(head.g, head.v);
  const { rows, dz, dw } = prototypeLoss(saved.unit.y, prototypes.w, targets, temperature);
  const { dg, dv } = weightNormBackward(dw, head.g, prototypes.direction);
  grads[`${head.name}.weight_g`] = dg;
  grads[`${head.name}.weight_v`] = dv;
  disposePrototypes(prototypes);
  dw.dispose();
  const dh = bottleneckBackward(head, dz, saved, grads);
  return { rows, dh, grads };
}

function disposePrototypes({ w, direction }: WeightNormOutput): void {
  tf.dispose([w, direction.y, direction.norm]);
}

/** Loss rows, dz [N,B] and dw [K,B] of the prototype layer. */
function prototypeLoss(
  z: tf.Tensor2D,
  w: tf.Tensor2D,
  targets: readonly ScoreTargets[],
  temperature: number,
): { rows: (tf.Tensor1D | undefined)[]; dz: tf.Tensor2D; dw: tf.Tensor2D } {
  const chunkRows = Math.max(64, Math.floor(scoresPerChunk / w.shape[0]));
  const dzPieces: tf.Tensor2D[] = [];
  let dw: tf.Tensor2D | undefined;
  let rowStart = 0;
  const rows = targets.map((run) => {
    const pieces: tf.Tensor1D[] = [];
    for (let start = 0; start < run.count; start += chunkRows) {
      const end = Math.min(start + chunkRows, run.count);
      const chunk = chunkLoss(z, w, run, rowStart, { start, end }, temperature);
      pieces.push(chunk.rows);
      dzPieces.push(chunk.dz);
      const sum: tf.Tensor2D = dw ? tf.add(dw, chunk.dw) : chunk.dw;
      if (dw) tf.dispose([dw, chunk.dw]);
      dw = sum;
    }
    rowStart += run.count;
    return joined(pieces);
  });
  return { rows, dz: joined(dzPieces) as tf.Tensor2D, dw: dw as tf.Tensor2D };
}

function chunkLoss(
  z: tf.Tensor2D,
  w: tf.Tensor2D,
  run: ScoreTargets,
  rowStart: number,
  { start, end }: { readonly start: number; readonly end: number },
  temperature: number,
): { rows: tf.Tensor1D; dz: tf.Tensor2D; dw: tf.Tensor2D } {
  return tf.tidy(() => {
    const part = tf.slice(z, [rowStart + start, 0], [end - start, -1]) as tf.Tensor2D;
    const logits = linear(part, w);
    const index = tf.tensor1d(run.index.subarray(start, end), "int32");
    const weight = tf.tensor1d(run.weight.subarray(start, end));
    const { rows, dlogits } = crossEntropy(
      { logits, target: run.target, index, weight },
      temperature,
    );
    logits.dispose();
    const { dw, dx } = linearBackward(dlogits, part, w, { needDx: true, hasBias: false });
    return { rows, dz: dx as tf.Tensor2D, dw };
  });
}

/** The concatenation of pieces, which it disposes; undefined for none. */
function joined<T extends tf.Tensor>(pieces: readonly T[]): T | undefined {
  if (pieces.length < 2) return pieces[0];
  const whole = tf.concat(pieces as T[]);
  tf.dispose(pieces as T[]);
  return whole;
}
