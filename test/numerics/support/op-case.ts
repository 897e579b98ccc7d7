/** One row of the table of ops. */
import type * as tf from "@tensorflow/tfjs-core";
import type { Roundings } from "./rounding.js";

export interface OpCase {
  readonly name: string;
  /** Kernels of KERNELS.md that it runs on an engine that has them. */
  readonly kernels: readonly string[];
  /** Shapes of its inputs, the cotangent dy included: normal values. */
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly roundings: Roundings;
  /** Values and gradients. */
  run(x: OpInputs): Record<string, tf.Tensor | undefined>;
}

/** An input as a matrix or a vector. */
export interface OpInputs {
  m(name: string): tf.Tensor2D;
  v(name: string): tf.Tensor1D;
}
