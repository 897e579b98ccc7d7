/** Images in, batches out: datasets, crops, masks, sampling, and the threads that make them. */
export { type CropKeys, makeCrops } from "./augment/crops.js";
export {
  type BadImage,
  type BatchSpec,
  type CropBuffers,
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
export { BadImageError, type Channels, type Image } from "./image.js";
export { drawMasks, type Masks } from "./masks.js";
export {
  type BatchPool,
  type BatchPoolOptions,
  type BatchPoolStats,
  startBatchPool,
} from "./pool/pool.js";
export { positionOf, sampleId } from "./sampler.js";
