/** Images in, batches out: datasets, crops, masks, sampling, and the threads that make them. */
export { blur, gaussianTaps } from "./augment/blur.js";
export { applyJitter, normalize, solarize, turnGrey } from "./augment/color.js";
export { recolored, renderCrop, renderGlobal } from "./augment/crops.js";
export { pillowBlur } from "./augment/pillow-blur.js";
export {
  type Box,
  type CropPlan,
  type CropRole,
  drawBox,
  drawCrop,
  type JitterOp,
  jitterOps,
} from "./augment/plan.js";
export { resizeBox, resizeLevels, wholeOf } from "./augment/resize.js";
export {
  type BadImage,
  type BatchSpec,
  type CropBuffers,
  cropRow,
  makeRankBatch,
  type RankBatch,
} from "./batch.js";
export type { Dataset, Split } from "./datasets/dataset.js";
export { type ImageHeader, readImageHeader } from "./datasets/decode.js";
export { type DemoImages, findDemoImages, findFashionMnist } from "./datasets/demo-images.js";
export {
  type DatasetSource,
  datasetFrom,
  openDataset,
  type SharedDataset,
} from "./datasets/open-dataset.js";
export {
  type EvaluationBatch,
  evaluationImages,
  loadEvaluationBatch,
} from "./evaluation.js";
export { BadImageError, type Channels, type Image, withChannels } from "./image.js";
export {
  collateMasks,
  drawMask,
  drawMasks,
  type MaskDraws,
  type Masks,
  maskDrawsOf,
  packMasks,
  upperTargets,
} from "./masks.js";
export {
  type BatchPool,
  type BatchPoolOptions,
  type BatchPoolStats,
  startBatchPool,
} from "./pool/pool.js";
export { positionOf, sampleId } from "./sampler.js";
