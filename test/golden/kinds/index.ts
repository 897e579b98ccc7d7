/** All kinds of golden files. A file must match exactly one of them. */
import type { Kind } from "../kind.js";
import { archStep } from "./arch-step.js";
import { augmentCropBoxes } from "./augment-crop-boxes.js";
import { augmentCropResize } from "./augment-crop-resize.js";
import { augmentGram } from "./augment-gram.js";
import { augmentOps } from "./augment-ops.js";
import { augmentPhoto } from "./augment-photo.js";
import { augmentReplay } from "./augment-replay.js";
import { augmentStats } from "./augment-stats.js";
import { block } from "./block.js";
import { blockV1 } from "./block-v1.js";
import { dinoHead } from "./dino-head.js";
import { dinoLoss, dinoLossV1 } from "./dino-loss.js";
import { dinoStep } from "./dino-step.js";
import { dropAddResidual } from "./drop-add-residual.js";
import { gramLossKind, gramResize } from "./gram.js";
import { ibotLoss } from "./ibot-loss.js";
import { koleoLoss } from "./koleo-loss.js";
import { maskCollate } from "./mask-collate.js";
import { maskGenerator } from "./mask-generator.js";
import { optimizers } from "./optimizers.js";
import { dinoParameterGroups, parameterGroups } from "./parameter-groups.js";
import { rope, ropeAugment } from "./rope.js";
import { dinoSchedules, schedulesOfV2, schedulesOfV3 } from "./schedules.js";
import { vit } from "./vit.js";
import { vitList } from "./vit-list.js";
import { vitV1 } from "./vit-v1.js";

export const kinds: readonly Kind[] = [
  archStep,
  dinoHead,
  dinoLossV1,
  dinoLoss,
  ibotLoss,
  koleoLoss,
  gramLossKind,
  gramResize,
  vitV1,
  vit,
  vitList,
  blockV1,
  block,
  dropAddResidual,
  rope,
  ropeAugment,
  dinoSchedules,
  schedulesOfV2,
  schedulesOfV3,
  dinoParameterGroups,
  parameterGroups,
  optimizers,
  dinoStep,
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
