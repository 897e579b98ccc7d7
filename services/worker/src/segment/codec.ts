/** Values in the exchange dtype: what a weight or a gradient looks like on its way. fp32 or IEEE half, little-endian. */
import { invariant, type RunSpec } from "@paddock/contract";
import type { FlatMath } from "@paddock/model";

export type ExchangeDtype = RunSpec["exchange"]["dtype"];

export interface Codec {
  readonly bytesPerValue: 2 | 4;
  /** A copy of `values` in the exchange dtype, on shared memory. */
  encode(values: Float32Array): Uint8Array;
  /** Decodes into `out`; the sizes must agree. `bytes` may be unaligned. */
  decode(bytes: Uint8Array, out: Float32Array): void;
  /** Rounds in place to what a trip through the exchange would give. */
  round(values: Float32Array): void;
}

export function codecOf(dtype: ExchangeDtype, flat: FlatMath): Codec {
  return dtype === "fp16" ? halfCodec(flat) : floatCodec;
}

const floatCodec: Codec = {
  bytesPerValue: 4,
  encode(values) {
    const out = new Float32Array(new SharedArrayBuffer(values.byteLength));
    out.set(values);
    return new Uint8Array(out.buffer);
  },
  decode(bytes, out) {
    invariant(
      bytes.byteLength === out.byteLength,
      `decode ${bytes.byteLength} into ${out.byteLength} bytes`,
    );
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
  },
  round() {
    // fp32 travels unchanged.
  },
};

function halfCodec(flat: FlatMath): Codec {
  return {
    bytesPerValue: 2,
    encode(values) {
      const out = new Uint16Array(new SharedArrayBuffer(values.length * 2));
      flat.encodeHalf(values, out);
      return new Uint8Array(out.buffer);
    },
    decode(bytes, out) {
      invariant(
        bytes.byteLength === out.length * 2,
        `decode ${bytes.byteLength} bytes into ${out.length} values`,
      );
      const aligned = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
      flat.decodeHalf(new Uint16Array(aligned.buffer, aligned.byteOffset, out.length), out);
    },
    round: (values) => flat.roundHalf(values),
  };
}
