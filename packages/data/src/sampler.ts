/**
 * Which image is seen when: an infinite stream of passes over the dataset, each in its own pseudo-random order. Any entry is computed
 * alone, without a table of the order, so a run continues anywhere at no cost and no worker count can change what is seen.
 *
 * The order of a pass is a keyed permutation of [0, count): a Feistel network over the smallest even number of bits that holds
 * count, applied again while the result lies outside (cycle walking; at most 4 applications on average).
 */
import { type Rng, rngOf, streams } from "@paddock/contract";

/** 8 rounds: 4 make a Feistel network pseudo-random for large halves, more are needed when a half has only a few bits. */
const rounds = 8;

/** The sample at `position` of the stream: an integer in [0, count). Every pass [k * count, (k + 1) * count) holds each sample once. */
export function sampleId(seed: number, count: number, position: number): number {
  const pass = Math.floor(position / count);
  return permuted(rngOf(seed, streams.order, pass), count, position - pass * count);
}

/** Position in the stream of image `image` of logical rank `rank` at `step`: steps outside, ranks inside, images innermost. */
export function positionOf(
  run: { readonly logicalRanks: number; readonly batchPerRank: number },
  step: number,
  rank: number,
  image: number,
): number {
  return (step * run.logicalRanks + rank) * run.batchPerRank + image;
}

/** The sample tried in place of an undecodable one, `attempt` = 0, 1, ... until one decodes. Uniform, independent of the order. */
export function replacementId(
  seed: number,
  count: number,
  position: number,
  attempt: number,
): number {
  return rngOf(seed, streams.replacement, position, attempt).below(count);
}

/** Image of `index` under a permutation of [0, count) that depends on the stream's keys only. */
export function permuted(rng: Rng, count: number, index: number): number {
  if (count === 1) return 0;
  const halfBits = Math.max(1, Math.ceil(Math.log2(count) / 2));
  const mask = 2 ** halfBits - 1;
  const keys = Array.from({ length: rounds }, () => Math.floor(rng.uniform() * 2 ** 32));
  let value = index;
  do value = feistel(value, keys, halfBits, mask);
  while (value >= count);
  return value;
}

/** Works on two halves of at most 26 bits, so that ids up to 2^52 stay exact: arithmetic instead of shifts on the whole. */
function feistel(value: number, keys: readonly number[], halfBits: number, mask: number): number {
  const base = mask + 1;
  let left = Math.floor(value / base);
  let right = value % base;
  for (const key of keys) {
    const mixed = (left ^ (mix(right ^ key) >>> (32 - halfBits))) & mask;
    left = right;
    right = mixed;
  }
  return left * base + right;
}

/** murmur3's finaliser. The high bits are the best mixed: the caller takes those. */
function mix(h: number): number {
  let x = h | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
