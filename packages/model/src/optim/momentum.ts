/** SGD with momentum as torch's, and DINO's LARS (utils.py of facebookresearch/dino), on parts of a shard. */
import { isAdapted, normKey, type Parameter, type RunSpec } from "@paddock/contract";
import type { OptimizerPart, VectorSpace } from "./vectors.js";

export interface MomentumOptions {
  readonly learningRate: number;
  /** Coupled: added to the gradient. */
  readonly weightDecay: number;
  readonly momentum: number;
  /** LARS's factor on the decayed gradient; 1 for SGD. */
  readonly trust: number;
}

/** grad = trust (grad + wd param); m = momentum m + grad; param -= lr m. In place; v is not used. */
export function momentumStep<V>(
  vectors: VectorSpace<V>,
  { param, grad, m }: OptimizerPart<V>,
  { learningRate, weightDecay, momentum, trust }: MomentumOptions,
): void {
  if (weightDecay !== 0) addScaled(vectors, grad, param, weightDecay);
  if (trust !== 1) vectors.scale(grad, trust);
  vectors.scale(m, momentum);
  vectors.add(m, grad);
  addScaled(vectors, param, m, -learningRate);
}

/** to += factor * from, rounded twice: the product, then the sum. */
function addScaled<V>(vectors: VectorSpace<V>, to: V, from: V, factor: number): void {
  const scaled = vectors.slice(from, 0, vectors.size(from));
  vectors.scale(scaled, factor);
  vectors.add(to, scaled);
  vectors.dispose(scaled);
}

/** What a parameter's update is made of besides its gradient. */
export interface Trusted {
  /** Factor that clips its gradient. */
  readonly clip: number;
  readonly weightDecay: number;
}

/**
 * LARS's trust ratio: eta ||p|| / ||c g + wd p||, or 1 where either is zero, for vectors, and for other optimizers. The norm of the
 * update follows from ||g||, ||p|| and <g, p>, in doubles, because c is known only after a step's norms have been exchanged.
 */
export function trustRatio(
  optimizer: RunSpec["optimizer"],
  parameter: Pick<Parameter, "name" | "shape">,
  normOf: (key: string) => number,
  { clip, weightDecay }: Trusted,
): number {
  if (!isAdapted(optimizer, parameter)) return 1;
  const { name } = parameter;
  const gradient = clip * normOf(name);
  const weight = normOf(normKey("weight", name));
  const product = clip * normOf(normKey("product", name));
  const square = gradient ** 2 + 2 * weightDecay * product + (weightDecay * weight) ** 2;
  // Opposite vectors may leave less than nothing.
  const update = Math.sqrt(Math.max(0, square));
  return weight > 0 && update > 0 ? (optimizer.larsEta * weight) / update : 1;
}
