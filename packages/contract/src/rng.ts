/**
 * Counter-based randomness: every draw is a pure function of its keys, so it does not depend on who draws it, or when.
 * The keys are mixed into a 32-bit state by murmur3's finaliser and drawn on with sfc32 (Chris Doty-Humphrey, PractRand),
 * which passes BigCrush. Not for cryptography.
 */

/** A stream of random numbers that belongs to one tuple of keys. */
export interface Rng {
  /** Uniform in [0, 1), 32 bits of resolution. */
  uniform(): number;
  /** Uniform in [low, high). */
  between(low: number, high: number): number;
  /** Uniform integer in [0, n). */
  below(n: number): number;
  /** Standard normal (Box-Muller). */
  normal(): number;
  /** A random permutation of 0..n-1 (Fisher-Yates). */
  permutation(n: number): Int32Array;
}

/** What a stream is for; part of its keys, so that two purposes never share draws. */
export const streams = {
  init: 1,
  order: 2,
  crop: 3,
  mask: 4,
  maskSlots: 5,
  dropPath: 6,
  replacement: 7,
  evaluation: 8,
  rope: 11,
} as const;

function mix(h: number): number {
  let x = h | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) | 0;
}

/** The stream of the given integer keys (each below 2^53). The same keys always give the same stream. */
export function rngOf(...keys: readonly number[]): Rng {
  let h = 0x9e3779b9 | 0;
  const lanes = new Int32Array(3);
  for (const key of keys) {
    const low = key | 0;
    const high = Math.floor(key / 2 ** 32) | 0;
    h = mix(Math.imul(h, 31) + mix(low ^ 0x165667b1) + Math.imul(mix(high ^ 0x27d4eb2f), 7));
    for (let i = 0; i < 3; i++) lanes[i] = mix((lanes[i] as number) + Math.imul(h, 2 * i + 3) + i);
  }
  let a = lanes[0] as number;
  let b = lanes[1] as number;
  let c = lanes[2] as number;
  let counter = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    c |= 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  let spare: number | undefined;
  const uniform = (): number => next() / 2 ** 32;
  const below = (n: number): number => Math.floor(uniform() * n);
  return {
    uniform,
    below,
    between: (low, high) => low + (high - low) * uniform(),
    normal() {
      if (spare !== undefined) {
        const value = spare;
        spare = undefined;
        return value;
      }
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      const angle = 2 * Math.PI * uniform();
      spare = radius * Math.sin(angle);
      return radius * Math.cos(angle);
    },
    permutation(n) {
      const order = Int32Array.from({ length: n }, (_, i) => i);
      for (let i = n - 1; i > 0; i--) {
        const j = below(i + 1);
        const swapped = order[i] as number;
        order[i] = order[j] as number;
        order[j] = swapped;
      }
      return order;
    },
  };
}
