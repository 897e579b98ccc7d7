/** The values of a foreign tensor, put together from a backbone's parameters. */
import { constantValues, elementsOf, type ForeignTensor, type RunSpec } from "@paddock/contract";
import type { NamedTensor } from "./write-weights.js";

/** Elements [first, first + elements) of a parameter ("backbone.cls_token"). */
export type ReadParameter = (
  parameter: string,
  first: number,
  elements: number,
) => Promise<Float32Array>;

export function namedTensor(
  tensor: ForeignTensor,
  rope: RunSpec["model"]["rope"],
  read: ReadParameter,
): NamedTensor {
  return {
    name: tensor.name,
    shape: tensor.shape,
    values: async () => {
      if (tensor.copies.length === 0) return constantValues(tensor, rope);
      const values = new Float32Array(elementsOf(tensor));
      for (const { parameter, first, at, elements, added } of tensor.copies) {
        const part = await read(parameter, first, elements);
        const out = values.subarray(at, at + elements);
        if (added) addTo(out, part);
        else out.set(part);
      }
      return values;
    },
  };
}

function addTo(out: Float32Array, part: Float32Array): void {
  for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) + (part[i] as number);
}
