/** One tensor of a foreign file, and which elements of which parameters it holds. All copies are of contiguous elements. */
import type { RopeSpec } from "../spec/model.js";
import type { BackboneShape } from "./shape.js";

/** Elements [first, first + elements) of a parameter lie at [at, at + elements) of the tensor. */
export interface Copy {
  /** Name in the layout: "backbone.cls_token". */
  readonly parameter: string;
  readonly first: number;
  readonly at: number;
  readonly elements: number;
  /** Written: added to what is there. Read: nothing is taken from here, so the parameter's elements become zero. */
  readonly added: boolean;
}

/** Values that no parameter has. */
export type Constant = "ones" | "zeros" | "identity" | "periods" | "key-mask";

export interface ForeignTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly copies: readonly Copy[];
  /** What it holds where nothing is copied. */
  readonly constant: Constant;
  /**
   * always: written, and a file must have it. optional: written; where a file lacks it, the parameter keeps its initial value.
   * accepted: not written, taken where a file has it.
   */
  readonly presence: "always" | "optional" | "accepted";
  /** Whether a constant of a file must be the expected one; false for layers that the backbone does not have. */
  readonly checked: boolean;
}

export function elementsOf({ shape }: Pick<ForeignTensor, "shape">): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** A tensor that is a parameter. */
export function same(name: string, shape: readonly number[], parameter: string): ForeignTensor {
  return part(name, shape, parameter, 0);
}

/** A tensor that is a parameter's elements from `first` on. */
export function part(
  name: string,
  shape: readonly number[],
  parameter: string,
  first: number,
): ForeignTensor {
  const elements = elementsOf({ shape });
  return made(name, shape, [copy(parameter, first, 0, elements)]);
}

export function made(
  name: string,
  shape: readonly number[],
  copies: readonly Copy[],
): ForeignTensor {
  return { name, shape, copies, constant: "zeros", presence: "always", checked: true };
}

export function copy(parameter: string, first: number, at: number, elements: number): Copy {
  return { parameter: `backbone.${parameter}`, first, at, elements, added: false };
}

/** A tensor that holds no parameter. */
export function constant(
  name: string,
  shape: readonly number[],
  value: Constant,
  checked = true,
): ForeignTensor {
  return { name, shape, copies: [], constant: value, presence: "optional", checked };
}

/** `<name>.weight` and, if there is one, `<name>.bias` of a linear layer [out, in] or a norm [width]. */
export function layer(
  name: string,
  shape: readonly number[],
  parameter: string,
  bias: boolean,
): ForeignTensor[] {
  const weight = same(`${name}.weight`, shape, `${parameter}.weight`);
  const out = shape[0] ?? 0;
  return bias ? [weight, same(`${name}.bias`, [out], `${parameter}.bias`)] : [weight];
}

/** Some consecutive output rows [start, start + shape[0]) of a linear layer. */
export function rows(
  name: string,
  shape: readonly [number, number],
  parameter: string,
  start: number,
  bias: boolean,
): ForeignTensor[] {
  const [out, into] = shape;
  const weight = part(`${name}.weight`, shape, `${parameter}.weight`, start * into);
  return bias ? [weight, part(`${name}.bias`, [out], `${parameter}.bias`, start)] : [weight];
}

export function optional(tensor: ForeignTensor): ForeignTensor {
  return { ...tensor, presence: "optional" };
}

/** What the tensor holds before parameters are copied into it. */
export function constantValues(
  tensor: ForeignTensor,
  rope: Pick<RopeSpec, "base" | "minPeriod" | "maxPeriod">,
): Float32Array {
  const elements = elementsOf(tensor);
  const values = new Float32Array(elements);
  switch (tensor.constant) {
    case "zeros":
      return values;
    case "ones":
      return values.fill(1);
    case "identity": {
      const side = tensor.shape[0] ?? 0;
      for (let i = 0; i < side; i++) values[i * side + i] = 1;
      return values;
    }
    case "periods":
      return values.map((_, i) => period(i, elements, rope));
    case "key-mask":
      return values.fill(1).fill(0, elements / 3, (2 * elements) / 3);
  }
}

/** Period i of n = (head width) / 4: base^(2i / 2n), or from the least to the greatest geometrically. */
function period(
  i: number,
  n: number,
  { base, minPeriod, maxPeriod }: Pick<RopeSpec, "base" | "minPeriod" | "maxPeriod">,
): number {
  if (base !== null) return base ** (i / n);
  const least = minPeriod ?? 1;
  const ratio = (maxPeriod ?? 1) / least;
  return least * ratio ** (n === 1 ? 0 : i / (n - 1));
}

/** [D, C, p, p]: our [D, C * p * p] in the same order. */
export function patchShape({ width, channels, patchSize }: BackboneShape): number[] {
  return [width, channels, patchSize, patchSize];
}
