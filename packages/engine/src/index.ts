/** Engines: what computes the model's tensors under TF.js. */
export type { Engine, EngineDescription, EngineName, EngineOptions } from "./engine.js";
export { EngineError, type EngineErrorCode } from "./errors.js";
export type { AdamWOptions, FlatMath } from "./flat.js";
export { describeEngines, openEngine } from "./open.js";
export { threadEnvironment } from "./threads.js";
