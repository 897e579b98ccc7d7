/**
 * DINO, DINOv2 and DINOv3 as functions of TF.js tensors, with explicit backward. Pure: no I/O. Start reading at train-step.ts.
 * Besides the step it exports its building blocks (`embed`, `blockForward`, `headLoss`, ...), for other objectives and for
 * the numerics tests.
 */
export { type FeatureArgs, type Features, features } from "./features.js";
export {
  type BatchNormSaved,
  type RunningStatistics,
  runningStatistics,
} from "./head/batch-norm.js";
export { type Head, headOf, headScores } from "./head/head.js";
export { headLoss, type ScoreTargets } from "./head/loss.js";
export { bottleneck, bottleneckBackward, disposeBottleneck } from "./head/mlp.js";
export { backPrototypes, disposeWeights, prototypeWeights } from "./head/prototypes.js";
export { initialUnit } from "./init.js";
export { type KnnArgs, knn } from "./knn.js";
export {
  applyPending,
  type Centers,
  centredSoftmax,
  initialCenters,
  launchMeans,
  readMeans,
} from "./loss/centering.js";
export { type GramOptions, gramLoss, gramPatches, resizePatches } from "./loss/gram.js";
export { groupKoleo, koleo } from "./loss/koleo.js";
export { type ScoresOfRanks, type SumAcrossRanks, sinkhorn } from "./loss/sinkhorn.js";
export {
  type AttentionShape,
  attention,
  attentionBackward,
  type SequenceGroup,
} from "./ops/attention.js";
export { crossEntropy } from "./ops/cross-entropy.js";
export { gelu, geluBackward } from "./ops/gelu.js";
export { l2Normalize, l2NormalizeBackward } from "./ops/l2-normalize.js";
export { layerNorm, layerNormBackward } from "./ops/layer-norm.js";
export { linear, linearBackward } from "./ops/linear.js";
export { type DenseLayer, mlp, mlpBackward } from "./ops/mlp.js";
export { type Precision, toPrecision } from "./ops/precision.js";
export { rmsNorm, rmsNormBackward } from "./ops/rms-norm.js";
export { type Rotation, rotate, rotateBackward } from "./ops/rope.js";
export { gatherRows, scatterAddRows } from "./ops/rows.js";
export { scaledAdd, scaledAddBackward } from "./ops/scaled-add.js";
export {
  maskRows,
  maskRowsBackward,
  sequenceRows,
  sequenceRowsBackward,
} from "./ops/sequence.js";
export {
  type SinkhornState,
  sinkhornColumns,
  sinkhornFinish,
  sinkhornRows,
  sinkhornStart,
} from "./ops/sinkhorn.js";
export { swiglu, swigluBackward } from "./ops/swiglu.js";
export { weightNorm, weightNormBackward } from "./ops/weight-norm.js";
export { type AdamWOptions, type FlatMath, referenceFlatMath } from "./optim/flat-math.js";
export { type NormShard, normNodes } from "./optim/norms.js";
export {
  clipCoefficient,
  learningRateOf,
  type Shard,
  type UpdateOptions,
  updateUnit,
  weightDecayOf,
} from "./optim/update.js";
export { hostVectors, type OptimizerPart, type VectorSpace } from "./optim/vectors.js";
export { visitsOf } from "./step/context.js";
export type {
  RankBatch,
  RankLosses,
  RankMonitor,
  Side,
  StepDeps,
  StepPhase,
  TrainStepArgs,
  TrainStepResult,
} from "./step/contract.js";
export { dinoPairs, dinoTargets, ibotTargets } from "./step/score-targets.js";
export { flatGradient, type Gathered, type UnitTensors, viewUnit } from "./tensors.js";
export { trainStep } from "./train-step.js";
export { attentionMaps } from "./vit/attention-maps.js";
export { blockBackward, blockForward, blockOf, disposeBlock, dropNothing } from "./vit/block.js";
export { dropPathRates, type VitConfig, vitConfigOf } from "./vit/config.js";
export {
  type CropGroup,
  embed,
  embedBackward,
  patchGrid,
  positionEncoding,
  sequencesOf,
} from "./vit/embed.js";
export { interpolationMatrix } from "./vit/interpolation.js";
export { disposeOutput, type OutputRows, output, outputBackward } from "./vit/output.js";
export { pixelGradients } from "./vit/pixels.js";
export {
  type DrawRope,
  disposeRotation,
  type RopeDraw,
  type RopeKey,
  ropePeriods,
  ropeTables,
  rotationOf,
} from "./vit/rope.js";
export {
  type BranchKey,
  type BranchRows,
  type ChooseSequences,
  type DrawUniforms,
  drawSamples,
  drawSubset,
  subsetSize,
} from "./vit/stochastic-depth.js";
