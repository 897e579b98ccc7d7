import { expect, test } from "vitest";
import { type DigestKind, digestOf } from "./digests.js";

function hexOf(kind: DigestKind, ...parts: readonly Uint8Array[]): string {
  const digest = digestOf(kind);
  for (const part of parts) digest.update(part);
  return digest.hex();
}

test("known values: SHA-256 of FIPS 180, and AES-128-GCM's first test case (nothing at all)", () => {
  expect(hexOf("sha256", Buffer.from("abc"))).toBe(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
  expect(hexOf("ghash")).toBe("58e2fccefa7e3061367f1d57a4e7455a");
});

test.each(["sha256", "ghash"] as const)(
  "%s: the parts' borders do not matter, every bit and the length do",
  (kind) => {
    const bytes = Buffer.from(Array.from({ length: 100 }, (_, i) => (i * 37) % 251));
    const whole = hexOf(kind, bytes);
    for (const at of [1, 15, 16, 17, 99]) {
      expect(hexOf(kind, bytes.subarray(0, at), bytes.subarray(at))).toBe(whole);
      expect(hexOf(kind, bytes.subarray(0, at))).not.toBe(whole);
    }
    const flipped = new Set([whole]);
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const other = Buffer.from(bytes);
      other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      flipped.add(hexOf(kind, other));
    }
    expect(flipped.size).toBe(1 + 8 * bytes.length);
    expect(hexOf(kind, bytes, Buffer.alloc(1))).not.toBe(whole);
  },
);
