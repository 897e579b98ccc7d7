/** fp16 in plain bit code: round to nearest, ties to even, with subnormals, infinities and NaN. */

let decodeTable: Float32Array | undefined;

/** fp32 to fp16 bits. hot: */
export function encodeHalf(src: Float32Array, dst: Uint16Array): void {
  const bits = new Uint32Array(src.buffer, src.byteOffset, src.length);
  for (let i = 0; i < bits.length; i++) dst[i] = halfOf(bits[i] as number);
}

/** fp16 bits to fp32, exactly. hot: */
export function decodeHalf(src: Uint16Array, dst: Float32Array): void {
  decodeTable ??= makeDecodeTable();
  for (let i = 0; i < src.length; i++) dst[i] = decodeTable[src[i] as number] as number;
}

/** Rounds to the nearest fp16 value in place. hot: */
export function roundHalf(x: Float32Array): void {
  decodeTable ??= makeDecodeTable();
  const bits = new Uint32Array(x.buffer, x.byteOffset, x.length);
  for (let i = 0; i < x.length; i++) x[i] = decodeTable[halfOf(bits[i] as number)] as number;
}

function halfOf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x38800000) {
    if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff); // NaN
    if (magnitude >= 0x47800000) return sign | 0x7c00; // 65536 and more, infinity
    // Re-bias the exponent by 127 - 15; a carry out of the mantissa rounds up to the next exponent, or infinity.
    const rebiased = magnitude - 0x38000000;
    return sign | ((rebiased + 0xfff + ((rebiased >>> 13) & 1)) >>> 13);
  }
  if (magnitude <= 0x33000000) return sign; // 2^-25 ties to zero
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const half = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  const up = rest > tie || (rest === tie && (half & 1) === 1);
  return sign | (up ? half + 1 : half);
}

function makeDecodeTable(): Float32Array {
  return Float32Array.from({ length: 0x10000 }, (_, half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >>> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}
