/**
 * How far float32 may take two engines apart, derived instead of chosen.
 *
 * A rounding is as good as an input that is off by one unit of 2^-24 (backward error: Higham, Accuracy and Stability of Numerical
 * Algorithms, section 3). How much such inputs move an output is measured: `response`, the reference's largest change, tensor by
 * tensor, when the sign of one unit of 2^-23 is drawn for every input value; twice 2^-24, as both sides round. Roundings add up:
 * single operations on the way from input to output linearly, those inside sums of n terms as a random walk, to sqrt(n)
 * (Higham and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis). So the bound of an output is
 * response * (operations + sqrt(terms)). Uniform errors are 0.6 of a unit, which leaves room for both together.
 */
import { rngOf } from "@paddock/contract";
import { expectClose } from "./close.js";

const unit = 2 ** -23;
const draws = 3;

/** Values by name. */
export type Named = ReadonlyMap<string, Float32Array>;

export interface Reference {
  readonly outputs: Named;
  /** Per output, the largest change of any of its values for inputs off by one unit. */
  readonly response: ReadonlyMap<string, number>;
}

/** Runs `compute` on the values and on slightly changed ones. */
export async function respond(
  inputs: Named,
  compute: (inputs: Named) => Promise<Named> | Named,
): Promise<Reference> {
  const outputs = await compute(inputs);
  const response = new Map<string, number>();
  for (let draw = 0; draw < draws; draw++) {
    const changed = await compute(shaken(inputs, draw));
    for (const [name, values] of outputs) {
      const other = changed.get(name) as Float32Array;
      // Storing the output is a rounding too: never less than one unit of it.
      let largest =
        response.get(name) ?? unit * values.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      for (const [i, value] of values.entries()) {
        largest = Math.max(largest, Math.abs((other[i] as number) - value));
      }
      response.set(name, largest);
    }
  }
  return { outputs, response };
}

/** The longest way from an input to an output. None at all: the output is exact. */
export interface Roundings {
  /** Terms of the sums on the way, all together. */
  readonly terms: number;
  /** Operations on single values; exp, erf, division and roots count 2 or 3, as libraries approximate them. */
  readonly operations: number;
}

/** Fails at the first output that is farther from the reference than `roundings` allow. */
export function expectWithinRounding(
  actual: Named,
  reference: Reference,
  roundings: Roundings,
): void {
  if ([...actual.keys()].join() !== [...reference.outputs.keys()].join()) {
    throw new RangeError(
      `expected ${[...reference.outputs.keys()]}, received ${[...actual.keys()]}`,
    );
  }
  for (const [name, expected] of reference.outputs) {
    const allowed = allowedFor(name, reference, roundings);
    expectClose(name, actual.get(name) as Float32Array, expected, () => allowed);
  }
}

/** The bound of one output. */
export function allowedFor(
  name: string,
  { response }: Reference,
  { terms, operations }: Roundings,
): number {
  return (response.get(name) ?? Number.NaN) * (operations + Math.sqrt(terms));
}

function shaken(inputs: Named, draw: number): Named {
  const rng = rngOf(2024, draw);
  return new Map(
    [...inputs].map(([name, values]) => [
      name,
      values.map((value) => value * (1 + (rng.uniform() < 0.5 ? unit : -unit))),
    ]),
  );
}
