/** What processes of a group exchange in tests, so that each can say what it expects. */
import { createHash } from "node:crypto";
import { rngOf } from "@paddock/contract";

/** What rank `from` sends to `to`: differs by pair and place. */
export function payloadOf(from: number, to: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(new SharedArrayBuffer(bytes));
  for (let i = 0; i < bytes; i++) payload[i] = (i * 31 + (i >> 9) * 7 + from * 101 + to * 13) & 255;
  return payload;
}

/** A logical rank's vector, with values whose sums round. */
export function leafOf(rank: number, elements: number): Float32Array {
  const rng = rngOf(7, rank, elements);
  return Float32Array.from({ length: elements }, () => rng.normal());
}

export function hashOf(values: ArrayBufferView): string {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return createHash("sha256").update(Uint8Array.from(bytes)).digest("hex");
}

/** Elements of each rank's shard: the last gets what is left over. */
export function shardsOf(elements: number, size: number) {
  const share = Math.floor(elements / size);
  return Array.from({ length: size }, (_, r) => ({
    start: r * share,
    end: r === size - 1 ? elements : (r + 1) * share,
  }));
}
