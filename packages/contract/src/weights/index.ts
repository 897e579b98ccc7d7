/** Names of backbone weights elsewhere: official repositories, transformers, timm. README.md says what was decided. */
export { configFiles, type ExportFacts } from "./configs.js";
export { type Detected, detectWeights, type Shapes, titleOf } from "./detect.js";
export {
  type Dialect,
  type DialectName,
  dialectFor,
  dialectNamed,
  type WeightFormat,
  weightFormats,
} from "./dialects.js";
export { modelBlockOf } from "./model-block.js";
export { type ImportPlan, type Piece, planImport } from "./plan.js";
export { type BackboneOptions, type BackboneShape, shapeOf } from "./shape.js";
export { constantValues, elementsOf, type ForeignTensor } from "./tensor.js";
