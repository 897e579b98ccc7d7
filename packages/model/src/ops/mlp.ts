/**
 * Linear layers with GELU between them, and their gradients: the MLP of a block, or of a head. Shapes: M rows, I inputs, O outputs.
 */
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./fused.js";
import { gelu, geluBackward } from "./gelu.js";
import { type LinearGradients, linear, linearBackward } from "./linear.js";

/** All layers of an MLP have a bias, or none has. */
export interface DenseLayer {
  /** [O,I] */
  readonly weight: tf.Tensor2D;
  /** [O] */
  readonly bias?: tf.Tensor1D | undefined;
}

export interface MlpOutput {
  /** [M,O] */
  readonly y: tf.Tensor2D;
  /** What entered each GELU, in order: backward needs it, and computes what left it again. */
  readonly before: readonly tf.Tensor2D[];
}

/** @param x [M,I] @param layers at least one. The caller owns the outputs. */
export function mlp(x: tf.Tensor2D, layers: readonly DenseLayer[]): MlpOutput {
  if (hasFused("PaddockMlp")) {
    const [y, ...before] = runFused("PaddockMlp", { x, ...named(layers) });
    return { y: y as tf.Tensor2D, before: before as tf.Tensor2D[] };
  }
  const before: tf.Tensor2D[] = [];
  let input = x;
  for (const [i, { weight, bias }] of layers.entries()) {
    const y = linear(input, weight, bias);
    if (input !== x) input.dispose();
    if (i === layers.length - 1) return { y, before };
    before.push(y);
    input = gelu(y);
  }
  throw new RangeError("an MLP has at least one layer");
}

/** Gradients of `mlp` for dy [M,O]: of x, and of each layer. The caller owns them. */
export function mlpBackward(
  dy: tf.Tensor2D,
  x: tf.Tensor2D,
  before: readonly tf.Tensor2D[],
  layers: readonly DenseLayer[],
): { readonly dx: tf.Tensor2D; readonly layers: readonly Omit<LinearGradients, "dx">[] } {
  const hasBias = layers[0]?.bias !== undefined;
  if (hasFused("PaddockMlpBackward")) {
    const kept = Object.fromEntries(before.map((tensor, i) => [`before${i}`, tensor]));
    const inputs = { dy, x, ...kept, ...named(layers) };
    const [dx, ...rest] = runFused("PaddockMlpBackward", inputs, { hasBias });
    const gradients = layers.map(() => {
      const dw = rest.shift() as tf.Tensor2D;
      return hasBias ? { dw, db: rest.shift() as tf.Tensor1D } : { dw };
    });
    return { dx: dx as tf.Tensor2D, layers: gradients };
  }
  const gradients: Omit<LinearGradients, "dx">[] = [];
  let d = dy;
  for (let i = layers.length - 1; i >= 0; i--) {
    const entered = before[i - 1];
    const input = entered ? gelu(entered) : x;
    const { weight } = layers[i] as DenseLayer;
    const { dx, ...ofLayer } = linearBackward(d, input, weight, { needDx: true, hasBias });
    gradients.unshift(ofLayer);
    if (d !== dy) d.dispose();
    d = dx as tf.Tensor2D;
    if (entered) {
      const dinput = d;
      d = geluBackward(dinput, entered);
      tf.dispose([dinput, input]);
    }
  }
  return { dx: d, layers: gradients };
}

/** The layers as a kernel's inputs. */
function named(layers: readonly DenseLayer[]): Record<string, tf.Tensor | undefined> {
  const inputs: Record<string, tf.Tensor | undefined> = {};
  for (const [i, { weight, bias }] of layers.entries()) {
    inputs[`weight${i}`] = weight;
    inputs[`bias${i}`] = bias;
  }
  return inputs;
}
