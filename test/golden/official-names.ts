/** Where the parameters of the official networks lie in ours, by their official names. */
import type { Layout, Parameter, Unit } from "@paddock/contract";
import { plainName } from "./backbone.js";
import type { Golden } from "./file.js";

type Vectors = ReadonlyMap<string, Float32Array>;

export interface Place {
  readonly official: string;
  readonly parameter: Parameter;
  /** The official tensor's values in a set of flat vectors. */
  in(vectors: Vectors): Float32Array;
}

/** DINOv3's SwiGLU has its two inputs apart, ours are the halves of one. */
const halfOfFused = /\.mlp\.w([12])\.(weight|bias)$/;

/** The place of each official name. @throws RangeError when one has none, or a parameter of ours is left without a name. */
export function placesOf(layout: Layout, names: readonly string[]): Place[] {
  const ours = new Map<string, { unit: Unit; parameter: Parameter; left: number }>();
  for (const unit of layout.units) {
    for (const parameter of unit.parameters) {
      ours.set(parameter.name, { unit, parameter, left: parameter.elements });
    }
  }
  const places = names.map((official): Place => {
    const half = halfOfFused.exec(official);
    const name = plainName(official).replace(halfOfFused, ".mlp.w12.$2");
    const found = ours.get(name);
    if (!found) throw new RangeError(`no parameter of ours is ${official}`);
    const { unit, parameter } = found;
    const elements = half ? parameter.elements / 2 : parameter.elements;
    const start = parameter.offset + (half?.[1] === "2" ? elements : 0);
    found.left -= elements;
    return {
      official,
      parameter,
      in: (vectors) =>
        (vectors.get(unit.name) ?? new Float32Array(0)).subarray(start, start + elements),
    };
  });
  const unnamed = [...ours].filter(([, { left }]) => left !== 0).map(([name]) => name);
  if (unnamed.length > 0)
    throw new RangeError(`not among the official names: ${unnamed.join(", ")}`);
  return places;
}

/** Flat vectors of the units, zero. */
export function emptyVectors(units: readonly Unit[]): Map<string, Float32Array> {
  return new Map(units.map(({ name, elements }) => [name, new Float32Array(elements)]));
}

/** Fills flat vectors with the tensors `<prefix><official name>`; those that are not recorded stay zero. */
export function readInto(
  vectors: Vectors,
  golden: Golden,
  places: readonly Place[],
  prefix: string,
): void {
  for (const place of places) {
    const name = prefix + place.official;
    const target = place.in(vectors);
    if (target.length > 0 && golden.has(name)) target.set(golden.f32(name));
  }
}
