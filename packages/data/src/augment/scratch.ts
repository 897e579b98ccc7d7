/**
 * Working memory that is used again for every crop. All pixel work is synchronous and nothing keeps a buffer beyond its call, so one
 * set per thread is enough; allocating per crop costs more than the arithmetic on small crops.
 */

export type Purpose = "resize" | "blur" | "crop" | "base" | "distorted" | "gram";

const buffers = new Map<Purpose, Float32Array>();

/** At least `elements` floats with undefined content, valid until the next call for the same purpose. */
export function scratchOf(purpose: Purpose, elements: number): Float32Array {
  const known = buffers.get(purpose);
  if (known && known.length >= elements) return known;
  const fresh = new Float32Array(Math.ceil(elements * 1.25));
  buffers.set(purpose, fresh);
  return fresh;
}
