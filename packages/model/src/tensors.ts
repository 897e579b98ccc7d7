/** Units as named tensors: views into a gathered flat vector, and flat gradients back. */
import { invariant, type Unit } from "@paddock/contract";
import * as tf from "@tensorflow/tfjs-core";
import { hasFused, runFused } from "./ops/fused.js";
import { isProductOperand, type Precision, toPrecision } from "./ops/precision.js";

/** Tensors by full parameter name ("backbone.blocks.0.attn.qkv.weight"), shaped as in the layout. */
export type UnitTensors = Readonly<Record<string, tf.Tensor>>;

/** A unit's parameters for as long as they are needed. */
export interface Gathered {
  readonly tensors: UnitTensors;
  /** Gives the memory back. To be called once. */
  release(): void;
}

/**
 * The parameters of a unit as tensors of their own, cut out of its flat float32 vector; weights and biases of the backbone's linear layers
 * in `precision`. The caller disposes them.
 */
export function viewUnit(
  unit: Unit,
  flat: tf.Tensor1D,
  precision: Precision = "fp32",
): UnitTensors {
  invariant(
    flat.size === unit.elements,
    `unit ${unit.name}: expected ${unit.elements} elements, received ${flat.size}`,
  );
  const precisionOf = (name: string): Precision => (isProductOperand(name) ? precision : "fp32");
  const tensors: Record<string, tf.Tensor> = {};
  if (hasFused("PaddockCut")) {
    const parts = runFused("PaddockCut", { x: flat }, cutsOf(unit, precisionOf));
    unit.parameters.forEach(({ name }, i) => {
      tensors[name] = parts[i] as tf.Tensor;
    });
    return tensors;
  }
  // TF.js's wasm slice reads its whole input every time; its memory is the host's anyway.
  const host = tf.getBackend() === "wasm" ? flat.dataSync() : undefined;
  return tf.tidy(() => {
    for (const { name, offset, elements, shape } of unit.parameters) {
      const values = host
        ? tf.tensor(host.subarray(offset, offset + elements), [...shape])
        : tf.reshape(tf.slice(flat, [offset], [elements]), [...shape]);
      const low = precisionOf(name);
      tensors[name] = low === "fp32" ? values : toPrecision(values, low);
    }
    return tensors;
  });
}

function cutsOf({ parameters }: Unit, precisionOf: (name: string) => Precision) {
  return {
    starts: parameters.map(({ offset }) => offset),
    shapes: parameters.map(({ shape }) => shape),
    precisions: parameters.map(({ name }) => precisionOf(name)),
  };
}

/**
 * The gradients of a unit as one flat vector [elements] in the order of its layout; absent gradients, those of parameters that are
 * not trained, and padding are zero.
 * Leaves `grads` to the caller, who owns the result.
 */
export function flatGradient(unit: Unit, grads: UnitTensors): tf.Tensor1D {
  const known = new Set(unit.parameters.map((parameter) => parameter.name));
  for (const name of Object.keys(grads)) {
    invariant(known.has(name), `unit ${unit.name} has no parameter ${name}`);
  }
  const present = unit.parameters.filter(({ name, trainable }) => trainable && grads[name]);
  if (present.length === 0) return tf.zeros([unit.elements]);
  for (const { name, elements } of present) {
    const size = grads[name]?.size;
    invariant(
      size === elements,
      `gradient of ${name}: expected ${elements} elements, received ${size}`,
    );
  }
  if (hasFused("PaddockJoin")) {
    const tensors = Object.fromEntries(present.map(({ name }) => [name, grads[name]]));
    const starts = present.map(({ offset }) => offset);
    const [flat] = runFused("PaddockJoin", tensors, { starts, size: unit.elements });
    return flat as tf.Tensor1D;
  }
  return tf.tidy(() => {
    const pieces: tf.Tensor1D[] = [];
    let end = 0;
    for (const { name, offset, elements } of present) {
      if (offset > end) pieces.push(tf.zeros([offset - end]));
      pieces.push(tf.reshape(grads[name] as tf.Tensor, [elements]));
      end = offset + elements;
    }
    if (unit.elements > end) pieces.push(tf.zeros([unit.elements - end]));
    return tf.concat(pieces);
  });
}

/** The parameter of that name, which a correct layout has. */
export function parameterOf<T extends tf.Tensor>(tensors: UnitTensors, name: string): T {
  const tensor = tensors[name];
  invariant(tensor, `parameter ${name} is missing; known: ${Object.keys(tensors).join(", ")}`);
  return tensor as T;
}

/** The parameter of that name, if the model has it. */
export function optionalParameter<T extends tf.Tensor>(
  tensors: UnitTensors,
  name: string,
): T | undefined {
  return tensors[name] as T | undefined;
}
