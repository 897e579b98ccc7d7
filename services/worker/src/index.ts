/** The worker: usually started as a process (main.ts); exported for tools that embed or test its parts. */

export { type ListedCheckpoint, listCheckpoints } from "./checkpoint/list.js";
export { writeShardFile } from "./checkpoint/writer.js";
export type { ShardState } from "./engine/calls.js";
export { createRedisExchange, redisMemoryBound } from "./exchange/redis-exchange.js";
export { allocateState } from "./segment/state.js";
export { type StepHost, StepRunner } from "./segment/step.js";
export { runWorker, type WorkerEnd, type WorkerOptions } from "./session/run-worker.js";
export {
  initialWorkerState,
  type WorkerEffect,
  type WorkerEvent,
  type WorkerState,
} from "./session/worker-event.js";
export { readableHoldings } from "./session/worker-generation.js";
export { decideWorker } from "./session/worker-state.js";
export { type ConvertOptions, convertWeights } from "./weights/convert-weights.js";
export { describeWeights, type WeightsDescription } from "./weights/describe-weights.js";
export { type ExportOptions, type ExportResult, exportWeights } from "./weights/export-weights.js";
export { loadBackbone } from "./weights/load-backbone.js";
