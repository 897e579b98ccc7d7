/** Makes the images of smoke.yaml: four shapes, 16x16 grey, in the IDX format. Rerun: node deploy/runs/smoke/make-images.mjs */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const side = 16;
const shapes = [
  (x, y, r) => Math.hypot(x, y) < r, // disc
  (x, y, r) => Math.max(Math.abs(x), Math.abs(y)) < r * 0.8, // square
  (x, y, r) =>
    Math.min(Math.abs(x), Math.abs(y)) < r * 0.3 && Math.max(Math.abs(x), Math.abs(y)) < r, // cross
  (x, y, r) => Math.hypot(x, y) < r * 1.1 && Math.hypot(x, y) > r * 0.65, // ring
];

let state = 7;
/** Uniform in [0, 1): Lehmer's generator, enough for pictures. */
function uniform() {
  state = (state * 48271) % 2147483647;
  return state / 2147483647;
}

function image(label) {
  const [cx, cy, radius] = [6 + 4 * uniform(), 6 + 4 * uniform(), 3.5 + 2 * uniform()];
  const [ink, paper] = [150 + 100 * uniform(), 40 * uniform()];
  return Buffer.from(
    Array.from({ length: side * side }, (_, i) => {
      const inside = shapes[label]((i % side) - cx, Math.floor(i / side) - cy, radius);
      return Math.round(inside ? ink : paper);
    }),
  );
}

function write(name, count) {
  const labels = Buffer.from(Array.from({ length: count }, (_, i) => i % shapes.length));
  const header = (magic, ...sizes) => {
    const bytes = Buffer.alloc(4 + 4 * sizes.length);
    for (const [i, value] of [magic, ...sizes].entries()) bytes.writeUInt32BE(value, 4 * i);
    return bytes;
  };
  const save = (kind, bytes) =>
    writeFileSync(
      join(import.meta.dirname, `${name}-${kind}-ubyte.gz`),
      gzipSync(bytes, { level: 9 }),
    );
  save("images-idx3", Buffer.concat([header(2051, count, side, side), ...[...labels].map(image)]));
  save("labels-idx1", Buffer.concat([header(2049, count), labels]));
}

write("train", 256);
write("t10k", 64);
