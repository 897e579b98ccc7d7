/** One run: its complete, validated, frozen configuration. Unknown keys are errors that name the nearest known one. */
import { z } from "zod";
import { PaddockError } from "../errors.js";
import { CropsSpec, cropProblems, DataSpec, MaskSpec } from "./data.js";
import { GuardsSpec, guardRules } from "./guards.js";
import { originHash } from "./hash.js";
import { HeadsSpec, ModelSpec, sizeOfModel } from "./model.js";
import { nearest } from "./nearest.js";
import { LossSpec, OptimizerSpec, ScheduleSpec } from "./train.js";

export const RunSpec = z.strictObject({
  /** Name shown in reports and metrics. */
  name: z
    .string()
    .regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$/, "expected 1 to 64 letters, digits, '.', '_' or '-'")
    .default("run"),
  /** Seed of everything random. */
  seed: z.number().int().nonnegative().default(0),
  /** Number of optimizer steps. */
  steps: z.number().int().positive(),
  /** L: the data-parallel ranks that the recipe is tuned for. Losses that depend on a batch are defined per rank. Never changes in a run; workers may. */
  logicalRanks: z.number().int().positive().default(4),
  /** Images per logical rank and step; global batch = logicalRanks * batchPerRank. */
  batchPerRank: z.number().int().positive(),
  model: ModelSpec.prefault({}),
  heads: HeadsSpec.prefault({}),
  data: DataSpec,
  crops: CropsSpec.prefault({}),
  masks: MaskSpec.prefault({}),
  loss: LossSpec.prefault({}),
  schedules: ScheduleSpec.prefault({}),
  optimizer: OptimizerSpec.prefault({}),
  /** Where weights come from; null: drawn from the seed. */
  init: z
    .strictObject({
      /** A checkpoint directory, or a safetensors file with a backbone in official, transformers or timm names. */
      checkpoint: z.string().min(1),
      /**
       * resume: the whole state; steps go on from the checkpoint's. teacher: student and teacher start from its teacher at step 0, with
       * new moments. backbone: the same with the backbone alone; heads are drawn from the seed.
       */
      load: z.enum(["resume", "teacher", "backbone"]).default("teacher"),
      /** SHA-256 of the checkpoint's manifest.json, or of the file; written down when the run starts, checked whenever it is read. */
      sha256: originHash,
    })
    .nullable()
    .default(null),
  /** Learn from a trained, frozen teacher, which may be larger; `teacher` is then the EMA of the student (DINOv3 distillation). */
  distillation: z
    .strictObject({
      /** Checkpoint directory whose teacher it is. */
      checkpoint: z.string().min(1),
      sha256: originHash,
      /** What was trained there. Prototypes and patch size must be the student's. */
      model: ModelSpec,
      heads: HeadsSpec,
    })
    .nullable()
    .default(null),
  /** Signs of collapse (README, "Is it learning?"). */
  monitor: z
    .strictObject({
      /** Steps between looks at the teacher's outputs; 0 turns them off. */
      everySteps: z.number().int().nonnegative().default(10),
      /** What a collapsed run does: go on with an alert, or stop with an error. */
      onCollapse: z.enum(["warn", "stop"]).default("warn"),
    })
    .prefault({}),
  guards: GuardsSpec.prefault({}),
  exchange: z
    .strictObject({
      /** redis: works wherever Redis is reached. collective: worker to worker through Gloo, several times as fast; falls back to redis, with a warning, where a worker has none. The same trajectory. */
      kind: z.enum(["redis", "collective"]).default("redis"),
      /** dtype in which weights and gradients travel. fp16 halves the bytes; both give one trajectory for every W. Sums of losses and Sinkhorn are always fp32. */
      dtype: z.enum(["fp16", "fp32"]).default("fp16"),
      /**
       * Initial factor on gradients (with engine.precision fp16: on the loss) before they are rounded to fp16; halved on overflow, doubled
       * after `scaleGrowthSteps` good steps. 1 where nothing is fp16.
       */
      initialScale: z.number().positive().default(65536),
      scaleGrowthSteps: z.number().int().positive().default(2000),
      /** Bytes of unread gradient payload one worker may keep in Redis before it waits (back-pressure). */
      maxInFlightBytes: z
        .number()
        .int()
        .positive()
        .default(64 * 2 ** 20),
      /** Seconds to wait for a peer's tensors before the step is reported as stuck. */
      timeoutSeconds: z.number().positive().default(60),
    })
    .prefault({}),
  engine: z
    .strictObject({
      /** auto: torch if it can be loaded, else tensorflow if installed, else wasm. */
      name: z.enum(["auto", "torch", "tensorflow", "wasm"]).default("auto"),
      /** Intra-op threads of one worker. Part of the spec because sums inside an op depend on it. */
      threads: z.number().int().positive().default(1),
      /**
       * Of matrix products and what lies between them: fp32; bf16, fp16 (torch engine): half the memory and many times the speed on
       * GPUs, no faster on CPUs. Residual stream, norms, heads (TF32 on GPUs), losses, master weights and sums of gradients stay fp32. fp16 needs the loss
       * scaled (exchange.initialScale); bf16 has fp32's range. Official: fp16 in DINO and DINOv2, bf16 in DINOv3.
       */
      precision: z.enum(["fp32", "bf16", "fp16"]).default("fp32"),
      /** keep: store a block's activations for backward; recompute: run its forward again (less memory, about 1.3x the time). */
      activations: z.enum(["keep", "recompute"]).default("keep"),
    })
    .prefault({}),
  fleet: z
    .strictObject({
      /** Worker processes to wait for before the first step (and to start, with `paddock train`). At most logicalRanks. */
      workers: z.number().int().positive().default(2),
      /** Steps leased to a worker at once. */
      segmentSteps: z.number().int().positive().default(50),
      /** A worker that reports no progress for so long loses its lease, in seconds. */
      leaseSeconds: z.number().positive().default(30),
      /**
       * What a lost worker's shards come back from. none: the last checkpoint. shadow: another worker keeps them too, by applying the same reduced
       * gradients: twice the state's memory, and one value of exchange.dtype per parameter and step more to send.
       */
      redundancy: z.enum(["none", "shadow"]).default("none"),
      /**
       * How logical ranks are dealt. measured: by the workers' speed, measured while they work; another deal needs a step that is clearly
       * shorter, steadily (services/coordinator/src/run/balance.ts). even: as equal as whole ranks allow. The same trajectory.
       */
      balance: z.enum(["measured", "even"]).default("measured"),
    })
    .prefault({}),
  checkpoint: z
    .strictObject({
      /** Steps between checkpoints; the last step is always saved. */
      everySteps: z.number().int().positive().default(500),
      /** Checkpoints kept; older ones are deleted after a newer one is durable. */
      keep: z.number().int().positive().default(2),
      /** Those of every so many steps are kept for ever, beside the newest. 0: none. */
      keepEvery: z.number().int().nonnegative().default(0),
      /**
       * Each worker's file is also written by the worker that keeps its shards too (fleet.redundancy: shadow), from there: a damaged file is
       * then read from, or mended by (`paddock checkpoint repair`), its replica. Twice the bytes on disk, and one more copy of a shard in memory.
       */
      replicas: z.boolean().default(false),
      /**
       * Where they lie. null: in the run directory. "s3://bucket/prefix": in S3-compatible storage, below the prefix under the run's id; endpoint, region
       * and credentials are those of coordinator's and workers' environments (AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...).
       */
      storage: z
        .string()
        .regex(
          /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](\/[\w.=-]*[\w=-])*$/,
          'expected "s3://bucket" or "s3://bucket/prefix" (letters, digits, ".", "_", "=" and "-" between slashes; no slash at the end)',
        )
        .nullable()
        .default(null),
    })
    .prefault({}),
  evaluation: z
    .strictObject({
      /** Steps between k-NN evaluations of the teacher; also at step 0 and at the end. 0 turns them off. */
      everySteps: z.number().int().nonnegative().default(500),
      /** Neighbours and temperature of the weighted vote (DINO: k = 20, T = 0.07, cosine). */
      k: z.number().int().positive().default(20),
      temperature: z.number().positive().default(0.07),
      /** Images used during the run: the bank is drawn from training images, queries from validation. */
      bank: z.number().int().positive().default(10000),
      queries: z.number().int().positive().default(2000),
      /** Images used at step 0 and at the end. 0 means all. */
      finalBank: z.number().int().nonnegative().default(0),
      finalQueries: z.number().int().nonnegative().default(0),
    })
    .prefault({}),
});
export type RunSpec = z.infer<typeof RunSpec>;
/** What a user writes: everything with a default may be absent. */
export type RunSpecInput = z.input<typeof RunSpec>;

/** The validated spec, frozen; or an `invalid-spec` error that lists every problem with path and remedy. */
export function parseRunSpec(input: unknown): RunSpec {
  const result = RunSpec.safeParse(input);
  if (!result.success) {
    const lines = result.error.issues.map((issue) => `  ${describeIssue(issue)}`);
    throw new PaddockError(
      "invalid-spec",
      `the run spec has ${lines.length} problem(s):\n${lines.join("\n")}`,
    );
  }
  const problems = crossChecks(result.data);
  if (problems.length > 0) {
    throw new PaddockError(
      "invalid-spec",
      `the run spec contradicts itself:\n  ${problems.join("\n  ")}`,
    );
  }
  return deepFreeze(result.data);
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const at = issue.path.join(".") || "(top level)";
  if (issue.code !== "unrecognized_keys") return `${at}: ${issue.message}`;
  const known = knownKeys(issue.path);
  return issue.keys
    .map((key) => {
      const guess = nearest(key, known);
      const remedy = guess ? `did you mean "${guess}"?` : `known keys: ${known.join(", ")}`;
      return `${[...issue.path, key].join(".")}: unknown key "${key}"; ${remedy}`;
    })
    .join("\n  ");
}

/** Keys that the schema knows at a path. */
function knownKeys(path: readonly PropertyKey[]): string[] {
  let schema: unknown = RunSpec;
  for (const part of path) schema = objectShape(schema)?.[String(part)];
  return Object.keys(objectShape(schema) ?? {});
}

function objectShape(schema: unknown): Record<string, unknown> | undefined {
  let current = schema as
    | { def?: { innerType?: unknown }; shape?: Record<string, unknown> }
    | undefined;
  while (current && !current.shape && current.def?.innerType) {
    current = current.def.innerType as typeof current;
  }
  return current?.shape;
}

/** Rules between fields. Each returns what is expected, what was received, and what to change. */
function crossChecks(spec: RunSpec): string[] {
  const { model, crops, fleet, loss } = spec;
  const { width, heads } = sizeOfModel(model);
  const globalBatch = spec.logicalRanks * spec.batchPerRank;
  const rules: [boolean, string][] = [
    [
      width % heads === 0,
      `model.heads: expected a divisor of the width ${width}, received ${heads}`,
    ],
    [
      crops.mean.length === model.channels && crops.std.length === model.channels,
      `crops.mean, crops.std: expected ${model.channels} value(s), one per channel, received ${crops.mean.length} and ${crops.std.length}`,
    ],
    [
      fleet.workers <= spec.logicalRanks,
      `fleet.workers: expected at most logicalRanks = ${spec.logicalRanks}, received ${fleet.workers}; use fewer workers or more logical ranks`,
    ],
    [
      !spec.checkpoint.replicas || fleet.redundancy === "shadow",
      `checkpoint.replicas: they are written from shadows, received fleet.redundancy ${fleet.redundancy}; set that to shadow, or replicas to false`,
    ],
    [
      loss.koleo === 0 || koleoImages(spec) > loss.koleoTopk,
      `batchPerRank: KoLeo needs at least ${loss.koleoTopk + 1} images among which neighbours are looked for, received ${koleoImages(spec)}; raise it or set loss.koleo to 0`,
    ],
    [
      koleoImages(spec) % spec.batchPerRank === 0 && globalBatch % koleoImages(spec) === 0,
      `loss.koleoGroup: expected a multiple of batchPerRank = ${spec.batchPerRank} that divides the global batch of ${globalBatch}, received ${loss.koleoGroup}`,
    ],
    [
      !loss.gram?.imageLevel || loss.gram.tokens === "all",
      `loss.gram.tokens: similarities within images need all patches, received ${loss.gram?.tokens}; set it to all or imageLevel to false`,
    ],
    [
      spec.crops.resolutions.length === 0 || model.positions === "rope",
      "crops.resolutions: several sizes need rotary positions; set model.positions to rope",
    ],
    [
      (width / heads) % 4 === 0 || model.positions === "learned",
      `model.heads: rotary positions need a head width that is a multiple of 4, received ${width} / ${heads}`,
    ],
    [
      !spec.distillation || spec.loss.gram?.teacher !== "frozen",
      "loss.gram: a run has one frozen teacher; with distillation, set loss.gram to null or its teacher to ema",
    ],
    [
      !spec.distillation || spec.distillation.model.patchSize === model.patchSize,
      `distillation.model.patchSize: expected the student's ${model.patchSize}, received ${spec.distillation?.model.patchSize}`,
    ],
    [
      !spec.distillation || samePrototypes(spec.heads, spec.distillation.heads),
      "distillation.heads: expected as many prototypes as the student's heads, and an iBOT head where the student has one",
    ],
    [
      !loss.gram?.imageLevel || loss.gram.tokens === "all",
      `loss.gram.tokens: similarities within images are among all patches; set it to all, or loss.gram.imageLevel to false`,
    ],
    [
      loss.gram === null || loss.gram.tokens === "all" || loss.ibot > 0,
      `loss.gram.tokens: "${loss.gram?.tokens}" needs masks; set loss.ibot above 0, or all`,
    ],
    [
      model.untieLocalClsNorm === false || crops.localCount > 0,
      "model.untieLocalClsNorm: there are no local crops; set it to false or crops.localCount above 0",
    ],
    ...guardRules(spec.guards),
  ];
  const problems = rules.filter(([holds]) => !holds).map(([, message]) => message);
  return [...problems, ...cropProblems(crops, model.patchSize)];
}

function samePrototypes(ours: HeadsSpec, theirs: HeadsSpec): boolean {
  return (
    ours.dino.prototypes === theirs.dino.prototypes &&
    ours.ibot?.prototypes === theirs.ibot?.prototypes
  );
}

/** Images among which KoLeo looks for neighbours. */
export function koleoImages(spec: Pick<RunSpec, "logicalRanks" | "batchPerRank" | "loss">): number {
  const { koleoGroup } = spec.loss;
  if (koleoGroup === "all") return spec.logicalRanks * spec.batchPerRank;
  return koleoGroup ?? spec.batchPerRank;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const inner of Object.values(value)) deepFreeze(inner);
    Object.freeze(value);
  }
  return value;
}
