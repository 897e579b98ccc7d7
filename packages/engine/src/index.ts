/** Engines: what computes the model's tensors under TF.js; and collectives: how processes exchange them. */
export { CollectiveError, type CollectiveErrorCode } from "./collectives/errors.js";
export { type Group, type GroupOptions, openGroup, whyNoGroups } from "./collectives/group.js";
export {
  describeNccl,
  type NcclFacts,
  NcclGroup,
  type NcclGroupOptions,
  ncclUniqueId,
} from "./collectives/nccl.js";
export {
  allReduce,
  type Elements,
  type Reduction,
  reduceScatter,
  type SumOrder,
} from "./collectives/reduce.js";
export type { Engine, EngineDescription, EngineName, EngineOptions } from "./engine.js";
export { EngineError, type EngineErrorCode } from "./errors.js";
export type { AdamWOptions, FlatMath } from "./flat.js";
export { describeEngines, openEngine } from "./open.js";
export { threadEnvironment } from "./threads.js";
export type { DeviceVector, DeviceVectors } from "./torch/vectors.js";
