/** Between wire bytes and plain objects: what every service definition serialises with. */
import type { Generated } from "#gen";

/** Both directions of one message. */
export interface Codec<Message> {
  /** The wire bytes; the caller owns them. */
  encode(message: Message): Buffer;
  /**
   * A plain object with every field set: absent scalars are zero or empty, absent messages null. Fields and kinds that
   * only a newer minor version knows are skipped. Byte fields are views of `bytes`.
   * Throws when `bytes` is not such a message, or when a 64-bit integer is not below 2^53.
   */
  decode(bytes: Uint8Array): Message;
}

export function codecOf<Message>(generated: Generated<Message>): Codec<Message> {
  return {
    encode(message) {
      const bytes = generated.encode(message).finish();
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    decode: (bytes) =>
      generated.toObject(generated.decode(bytes), { defaults: true, oneofs: true, longs: Number }),
  };
}
