/** Inner products of vectors, chunk by chunk. */

/**
 * The sum of a[i] b[i] over each chunk of `chunk` elements (the last may be shorter), in doubles and in a fixed order: 8 lanes by
 * i % 8, then ((l0+l1)+(l2+l3))+((l4+l5)+(l6+l7)). hot:
 */
export function sumProducts(a: Float32Array, b: Float32Array, chunk: number): Float64Array {
  const out = new Float64Array(Math.ceil(a.length / chunk));
  const lanes = new Float64Array(8);
  for (let c = 0; c < out.length; c++) {
    lanes.fill(0);
    const start = c * chunk;
    const end = Math.min(start + chunk, a.length);
    for (let i = start; i < end; i++) {
      const lane = (i - start) & 7;
      lanes[lane] = (lanes[lane] as number) + (a[i] as number) * (b[i] as number);
    }
    const at = (lane: number): number => lanes[lane] as number;
    out[c] = at(0) + at(1) + (at(2) + at(3)) + (at(4) + at(5) + (at(6) + at(7)));
  }
  return out;
}
