/** The MLP of a head, from rows to unit vectors. Shapes: N rows, D width, B bottleneck. */
import * as tf from "@tensorflow/tfjs-core";
import { gelu, geluBackward } from "../ops/gelu.js";
import { l2Normalize, l2NormalizeBackward, type Normalized } from "../ops/l2-normalize.js";
import { mlp as dense, mlpBackward as denseBackward } from "../ops/mlp.js";
import type { UnitTensors } from "../tensors.js";
import {
  applyLinear,
  backLinear,
  type Grads,
  keepLinears,
  type LinearLayer,
  linearLayer,
} from "../vit/layers.js";
import {
  applyBatchNorm,
  type BatchNormLayer,
  type BatchNormSaved,
  backBatchNorm,
  batchNormLayer,
} from "./batch-norm.js";

/** torch.nn.functional.normalize in fp32. */
const normalizeEps = 1e-12;

/** Linear, batch norm if there is one, then GELU; the last layer has neither. */
export interface MlpLayer {
  readonly linear: LinearLayer;
  readonly norm: BatchNormLayer | undefined;
}

const byNumber = new Intl.Collator("en", { numeric: true });

/** The layers `<prefix>.mlp` (one) or `<prefix>.mlp.0`, ... (more), in order. Weights of linear layers are matrices, of norms vectors. */
export function mlpOf(tensors: UnitTensors, prefix: string): MlpLayer[] {
  return Object.keys(tensors)
    .filter((name) => name.startsWith(`${prefix}.mlp.`) && name.endsWith(".weight"))
    .filter((name) => tensors[name]?.rank === 2)
    .map((name) => name.slice(0, -".weight".length))
    .sort(byNumber.compare)
    .map((name) => ({
      linear: linearLayer(tensors, name),
      norm: batchNormLayer(tensors, next(name)),
    }));
}

/** What follows a layer in the official Sequential: "mlp.4" after "mlp.3". */
function next(name: string): string {
  return name.replace(/\d+$/, (index) => String(Number(index) + 1));
}

/** Activations of `bottleneck` for its backward. */
export interface BottleneckSaved {
  /** Input of each layer; the first is the head's input, not owned. Without batch norm no other is kept. */
  readonly inputs: readonly tf.Tensor2D[];
  /** Of each layer but the last: what entered its GELU. */
  readonly before: readonly tf.Tensor2D[];
  /** Of each layer but the last: of its batch norm, if it has one. */
  readonly normed: readonly (BatchNormSaved | undefined)[];
  readonly unit: Normalized;
}

/** The linear layers of an MLP without batch norms, else undefined. */
function plainLayers(mlp: readonly MlpLayer[]): LinearLayer[] | undefined {
  return mlp.some(({ norm }) => norm) ? undefined : mlp.map(({ linear }) => linear);
}

/** Unit rows z [N,B] (`saved.unit.y`) from h [N,D]. The caller owns the output but for h. */
export function bottleneck(mlp: readonly MlpLayer[], h: tf.Tensor2D): BottleneckSaved {
  const linears = plainLayers(mlp);
  if (linears) {
    const { y, before } = dense(h, linears);
    const unit = l2Normalize(y, normalizeEps);
    y.dispose();
    return { inputs: [h], before, normed: [], unit };
  }
  const inputs = [h];
  const before: tf.Tensor2D[] = [];
  const normed: (BatchNormSaved | undefined)[] = [];
  let x = h;
  for (const [i, { linear, norm }] of mlp.entries()) {
    const y = applyLinear(linear, x);
    if (i === mlp.length - 1) {
      const unit = l2Normalize(y, normalizeEps);
      y.dispose();
      return { inputs, before, normed, unit };
    }
    const outcome = norm && applyBatchNorm(norm, y);
    normed.push(outcome?.saved);
    before.push(outcome?.y ?? y);
    x = gelu(outcome?.y ?? y);
    inputs.push(x);
  }
  throw new RangeError("a head has at least one layer");
}

/** dh [N,D] for dz [N,B]; parameter gradients go into `grads`. Disposes dz and `saved`, leaves h to the caller. */
export function bottleneckBackward(
  mlp: readonly MlpLayer[],
  dz: tf.Tensor2D,
  saved: BottleneckSaved,
  grads: Grads,
): tf.Tensor2D {
  let d = l2NormalizeBackward(dz, saved.unit);
  tf.dispose([dz, saved.unit.y, saved.unit.norm]);
  const linears = plainLayers(mlp);
  if (linears) {
    const { dx, layers } = denseBackward(d, saved.inputs[0] as tf.Tensor2D, saved.before, linears);
    keepLinears(linears, layers, grads);
    tf.dispose([d, ...saved.before]);
    return dx;
  }
  for (let i = mlp.length - 1; i >= 0; i--) {
    const input = saved.inputs[i] as tf.Tensor2D;
    const dinput = backLinear((mlp[i] as MlpLayer).linear, d, input, grads);
    d.dispose();
    d = dinput;
    if (i > 0) {
      d = hiddenBackward(mlp[i - 1] as MlpLayer, dinput, saved, i - 1, grads);
      tf.dispose([dinput, input]);
    }
  }
  return d;
}

/** Through GELU and batch norm of a hidden layer, whose activations it disposes. */
function hiddenBackward(
  { norm }: MlpLayer,
  dy: tf.Tensor2D,
  saved: BottleneckSaved,
  index: number,
  grads: Grads,
): tf.Tensor2D {
  const before = saved.before[index] as tf.Tensor2D;
  const dbefore = geluBackward(dy, before);
  before.dispose();
  const stats = saved.normed[index];
  if (!norm || !stats) return dbefore;
  const dx = backBatchNorm(norm, dbefore, stats, grads);
  tf.dispose([dbefore, stats.x, stats.mean, stats.rstd]);
  return dx;
}

/** Disposes a bottleneck that no backward follows; h stays. */
export function disposeBottleneck({ unit, before, normed, inputs }: BottleneckSaved): void {
  const stats = normed.flatMap((saved) => (saved ? [saved.x, saved.mean, saved.rstd] : []));
  tf.dispose([unit.y, unit.norm, ...before, ...stats, ...inputs.slice(1)]);
}
