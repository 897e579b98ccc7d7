/** Small labelled image sets, made on the spot: bars of ten directions with noise, in the MNIST family's format. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rngOf } from "@paddock/contract";

const side = 28;
const classes = 10;

/** Writes train and t10k files of `train` and `held` images into `directory`; returns it. */
export function writeIdxImages(directory: string, train: number, held: number): string {
  mkdirSync(directory, { recursive: true });
  writeSplit(directory, "train", train, 1);
  writeSplit(directory, "t10k", held, 2);
  return directory;
}

function writeSplit(directory: string, name: string, count: number, seed: number): void {
  const images = Buffer.alloc(16 + count * side * side);
  images.writeUInt32BE(0x803, 0);
  for (const [i, value] of [count, side, side].entries()) images.writeUInt32BE(value, 4 + 4 * i);
  const labels = Buffer.alloc(8 + count);
  labels.writeUInt32BE(0x801, 0);
  labels.writeUInt32BE(count, 4);
  for (let i = 0; i < count; i++) {
    const rng = rngOf(seed, i);
    const label = rng.below(classes);
    labels[8 + i] = label;
    const angle = (Math.PI * label) / classes;
    const shift = rng.between(-4, 4);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const distance = (x - 14) * Math.sin(angle) - (y - 14) * Math.cos(angle) + shift;
        const value = Math.abs(distance) < 4 ? 200 : 20;
        images[16 + (i * side + y) * side + x] = value + rng.below(50);
      }
    }
  }
  writeFileSync(join(directory, `${name}-images-idx3-ubyte`), images);
  writeFileSync(join(directory, `${name}-labels-idx1-ubyte`), labels);
}
