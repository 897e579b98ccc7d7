import { type Box, resizeBox, resizeLevels, wholeOf } from "@paddock/data";
import { cutOut } from "../augment/eight-bits.js";
import { channelsLast, compareLevels, photoOf } from "../augment/images.js";
import type { Kind } from "../kind.js";

/** Bicubic crop-resize of fixed boxes: [top, left, height, width, size]. */
export const augmentCropResize: Kind = {
  name: "augment crop-resize",
  matches: (golden) => Array.isArray(golden.config.boxes_top_left_h_w_size),
  run(golden, check) {
    const photo = photoOf(golden);
    const boxes = golden.config.boxes_top_left_h_w_size as number[][];
    const yardsticks = golden.metadata<Record<string, [number, number]>>("pil_vs_float");
    boxes.forEach(([top = 0, left = 0, height = 0, width = 0, size = 0], i) => {
      const box: Box = { top, left, height, width };
      const ours = new Float32Array(size * size * 3);
      resizeBox(photo, box, wholeOf(size), wholeOf(size), false, ours);
      const name = `outputs.${i}`;
      // As close to Pillow as torch's own float resize is (the recorded distances have three digits), or as half a level before the second
      // pass, whose weights' magnitudes sum to at most 1.25, and half a level after it.
      const [max, mean] = yardsticks[i] as [number, number];
      const limits = { max: Math.max(max, 1.125) + 2e-3, mean: mean + 2e-4 };
      compareLevels(check, name, ours, golden.u8(name), limits);
      const inEightBits = cutOut(photo, { box, flip: false }, size);
      compareLevels(check, `${name} (rounded as Pillow does)`, inEightBits, golden.u8(name), {
        max: 1,
        mean: 1e-3,
      });
      check.covered(name);
      const float = `outputs.float.${i}`;
      if (!golden.has(float)) return;
      const wanted = channelsLast(golden.f32(float), golden.shape(float));
      // Unclipped, as torch resizes floats: the same but for single precision.
      const unclipped = new Float32Array(size * size * 3);
      resizeLevels(levelsOf(photo, box), box, 3, size, false, unclipped);
      check.close(float, unclipped, wanted, () => 2e-4);
      check.covered(float);
    });
    const unknown = golden
      .names("outputs.")
      .filter((name) => !/^outputs\.(float\.)?\d+$/.test(name));
    check.equal("tensors that no box belongs to", unknown, []);
  },
};

function levelsOf(photo: { width: number; pixels: Uint8Array }, box: Box): Float32Array {
  return Float32Array.from({ length: box.height * box.width * 3 }, (_, i) => {
    const [y, x] = [Math.floor(i / (3 * box.width)), Math.floor(i / 3) % box.width];
    return photo.pixels[((box.top + y) * photo.width + box.left + x) * 3 + (i % 3)] as number;
  });
}
