/** All kinds of golden files. A file must match exactly one of them. */
import type { Kind } from "../kind.js";
import { block } from "./block.js";
import { blockV1 } from "./block-v1.js";
import { dropAddResidual } from "./drop-add-residual.js";
import { rope, ropeAugment } from "./rope.js";
import { vit } from "./vit.js";
import { vitList } from "./vit-list.js";
import { vitV1 } from "./vit-v1.js";

export const kinds: readonly Kind[] = [
  vitV1,
  vit,
  vitList,
  blockV1,
  block,
  dropAddResidual,
  rope,
  ropeAugment,
];
