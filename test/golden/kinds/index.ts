/** All kinds of golden files. A file must match exactly one of them. */
import type { Kind } from "../kind.js";
import { augmentCropBoxes } from "./augment-crop-boxes.js";
import { augmentCropResize } from "./augment-crop-resize.js";
import { augmentGram } from "./augment-gram.js";
import { augmentOps } from "./augment-ops.js";
import { augmentPhoto } from "./augment-photo.js";
import { augmentReplay } from "./augment-replay.js";
import { augmentStats } from "./augment-stats.js";
import { maskCollate } from "./mask-collate.js";
import { maskGenerator } from "./mask-generator.js";

export const kinds: readonly Kind[] = [
  augmentCropBoxes,
  augmentCropResize,
  augmentGram,
  augmentOps,
  augmentPhoto,
  augmentReplay,
  augmentStats,
  maskCollate,
  maskGenerator,
];
