/** Values in the exchange dtype: what a weight or a gradient looks like on its way. fp32 or IEEE half, little-endian. */
import { invariant, type RunSpec } from "@paddock/contract";
import type { VectorSpace } from "@paddock/model";

export type ExchangeDtype = RunSpec["exchange"]["dtype"];

export interface Codec<V> {
  readonly bytesPerValue: 2 | 4;
  /** A copy of `values` in the exchange dtype, on shared memory. */
  encode(values: V): Uint8Array;
  /** Decodes into `out`; the sizes must agree. `bytes` may be unaligned. */
  decode(bytes: Uint8Array, out: V): void;
  /** Rounds in place to what a trip through the exchange would give. */
  round(values: V): void;
}

export function codecOf<V>(dtype: ExchangeDtype, vectors: VectorSpace<V>): Codec<V> {
  return dtype === "fp16" ? halfCodec(vectors) : floatCodec(vectors);
}

function floatCodec<V>(vectors: VectorSpace<V>): Codec<V> {
  return {
    bytesPerValue: 4,
    encode(values) {
      const out = new Float32Array(new SharedArrayBuffer(vectors.size(values) * 4));
      vectors.read(values, out);
      return new Uint8Array(out.buffer);
    },
    decode(bytes, out) {
      const whole = aligned(bytes, 4, vectors.size(out));
      vectors.write(out, new Float32Array(whole.buffer, whole.byteOffset, vectors.size(out)));
    },
    round() {
      // fp32 travels unchanged.
    },
  };
}

function halfCodec<V>(vectors: VectorSpace<V>): Codec<V> {
  return {
    bytesPerValue: 2,
    encode: (values) => new Uint8Array(vectors.encodeHalf(values).buffer),
    decode(bytes, out) {
      const whole = aligned(bytes, 2, vectors.size(out));
      vectors.decodeHalf(new Uint16Array(whole.buffer, whole.byteOffset, vectors.size(out)), out);
    },
    round: (values) => vectors.roundHalf(values),
  };
}

/** The bytes of `count` values, moved only if they do not lie on a multiple of their size. */
function aligned(bytes: Uint8Array, width: number, count: number): Uint8Array {
  invariant(
    bytes.byteLength === count * width,
    `decode ${bytes.byteLength} bytes into ${count} values`,
  );
  return bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);
}
