/** bfloat16 as float32 values: the upper 16 bits, rounded to the nearest, ties to even. */

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** x rounded to float32, then to bfloat16. */
export function roundToBfloat16(x: number): number {
  float[0] = x;
  const value = bits[0] as number;
  if ((value & 0x7fffffff) > 0x7f800000) return Number.NaN;
  bits[0] = (value + 0x7fff + ((value >>> 16) & 1)) & 0xffff0000;
  return float[0] as number;
}
