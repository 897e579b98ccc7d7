/** The worker: usually started as a process (main.ts); exported for tools that embed or test its parts. */

export { type CheckpointHost, startCheckpointThread } from "./checkpoint/checkpoint-host.js";
export type { Wanted } from "./checkpoint/file-content.js";
export { type ListedCheckpoint, listCheckpoints } from "./checkpoint/list.js";
export { loadCheckpoint } from "./checkpoint/load.js";
export type { ExpectedState } from "./checkpoint/reader.js";
export { type Repair, repairCheckpoint } from "./checkpoint/repair.js";
export { type VerifiedCheckpoint, verifyCheckpoint } from "./checkpoint/verify.js";
export { type ShardEntry, type ShardFile, writeShardFile } from "./checkpoint/writer.js";
export type { ShardState } from "./engine/calls.js";
export { createRedisExchange } from "./exchange/redis-exchange.js";
export { redisMemoryBound } from "./exchange/redis-memory.js";
export { collectGarbage, limitHeapGrowth } from "./heap-growth.js";
export { bytesPerValue, type Footprint, footprintOf } from "./segment/footprint.js";
export { allocateState } from "./segment/state.js";
export { type StepHost, StepRunner } from "./segment/step.js";
export { runWorker } from "./session/run-worker.js";
export type { WorkerSecurity } from "./session/security.js";
export type { WorkerEnd, WorkerOptions } from "./session/worker-options.js";
export { type ConvertOptions, convertWeights } from "./weights/convert-weights.js";
export { describeWeights, type WeightsDescription } from "./weights/describe-weights.js";
export { type ExportOptions, type ExportResult, exportWeights } from "./weights/export-weights.js";
export { loadBackbone } from "./weights/load-backbone.js";
