/** Values of a safetensors file as fp32, whatever its floating-point dtype. Little-endian. */
import type { Dtype } from "../checkpoint/safetensors.js";

type Decode = (view: DataView, at: number) => number;

const decoders: Readonly<Partial<Record<Dtype, Decode>>> = {
  F64: (view, at) => view.getFloat64(at, true),
  F32: (view, at) => view.getFloat32(at, true),
  F16: (view, at) => halfOf(view.getUint16(at, true)),
  BF16: (view, at) => {
    scratch.setUint32(0, view.getUint16(at, true) << 16);
    return scratch.getFloat32(0);
  },
};

const scratch = new DataView(new ArrayBuffer(4));

export function isFloating(dtype: Dtype): boolean {
  return decoders[dtype] !== undefined;
}

/** `bytes` may be unaligned; its dtype must be floating. */
export function decodeValues(bytes: Uint8Array, dtype: Dtype, width: number): Float32Array {
  const decode = decoders[dtype] as Decode;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float32Array(bytes.byteLength / width);
  for (let i = 0; i < values.length; i++) values[i] = decode(view, i * width);
  return values;
}

/** IEEE half: sign, 5 bits of exponent, 10 of mantissa. */
function halfOf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}
