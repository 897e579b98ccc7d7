/** Shared domain of coordinator, workers and tools. Pure: no I/O, no tensors. */
export { type DataWindow, dataStepOf, leaveOut } from "./data-windows.js";
export { type ErrorCode, invariant, isErrorCode, PaddockError, type Retry } from "./errors.js";
export { incidentOf, offenderText, rememberedIncidents } from "./incidents.js";
export { gridSide, type Layout, layoutOf } from "./layout/layout.js";
export {
  isAdapted,
  type NormGroup,
  type NormSource,
  type NormSum,
  nodesOf,
  normGroupsOf,
  normKey,
  type StepNorms,
  stepNorms,
} from "./layout/norms.js";
export {
  frozenSpecOf,
  frozenUnitsOf,
  gramUpdateDue,
  isStateKind,
  type StateKind,
  type StatePart,
  stateKinds,
  statePartsOf,
} from "./layout/state.js";
export type { Parameter, Submodule, Unit } from "./layout/unit.js";
export { keptSteps } from "./retention.js";
export { type Rng, rngOf, streams } from "./rng.js";
export {
  type LearningRateRule,
  type StepScalars,
  scalarsAt,
  scaledLearningRate,
  scheduleAt,
} from "./schedule.js";
export {
  type CollapseKind,
  collapseKinds,
  type GradNorms,
  type GuardCause,
  type LedgerRecord,
  type Losses,
  type Manifest,
  type ManifestFile,
  type Monitor,
  type Offender,
  type Rollback,
  type ScalerState,
  type SegmentJob,
  type SkipReason,
  type StepPart,
  type StepRecord,
  type StepSeconds,
  skipReasons,
  stepParts,
} from "./segment.js";
export {
  chunkElements,
  chunksIn,
  cutsBySpeed,
  evenCuts,
  intersect,
  type Range,
  type RankCuts,
  ranksOf,
  ranksOfCut,
  shardOf,
  sizeOf,
} from "./shards.js";
export {
  blurProbabilitiesOf,
  type ColorSpec,
  type CropSpec,
  type CropsSpec,
  type DataSpec,
  type MaskSpec,
  type Resolution,
  resolutionAt,
  resolutionsOf,
} from "./spec/data.js";
export type { GuardsSpec } from "./spec/guards.js";
export {
  ffnHidden,
  type HeadSpec,
  type HeadsSpec,
  type ModelSpec,
  type RopeSpec,
  sizeOfModel,
} from "./spec/model.js";
export { nearest } from "./spec/nearest.js";
export { koleoImages, parseRunSpec, RunSpec, type RunSpecInput } from "./spec/run.js";
export type { GramSpec, LossSpec, OptimizerSpec, Schedule, ScheduleSpec } from "./spec/train.js";
export { subtreeRoots, sumTree, type TreeNode } from "./tree.js";
export { configFiles, type ExportFacts } from "./weights/configs.js";
export { type Detected, detectWeights, type Shapes, titleOf } from "./weights/detect.js";
export {
  type Dialect,
  type DialectName,
  dialectFor,
  dialectNamed,
  type WeightFormat,
  weightFormats,
} from "./weights/dialects.js";
export { modelBlockOf } from "./weights/model-block.js";
export { type ImportPlan, type Piece, planImport } from "./weights/plan.js";
export { type BackboneOptions, type BackboneShape, shapeOf } from "./weights/shape.js";
export { constantValues, elementsOf, type ForeignTensor } from "./weights/tensor.js";
