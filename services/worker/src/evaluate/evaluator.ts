/** Weighted k-NN of the teacher on labelled images, in the run: features on all workers, the vote on worker 0. */
import { PaddockError, type RunSpec } from "@paddock/contract";
import { type Dataset, evaluationImages, loadEvaluationBatch, openDataset } from "@paddock/data";
import type { Membership } from "../engine/calls.js";
import type { EngineHost } from "../engine/engine-host.js";
import type { Exchange } from "../exchange/exchange.js";

export interface EvaluationResult {
  /** Fraction in [0, 1]. */
  readonly accuracy: number;
  readonly bank: number;
  readonly queries: number;
}

export interface EvaluationRequest {
  readonly membership: Membership;
  /** Weights that were published for this step are evaluated. */
  readonly step: number;
  /** true: finalBank and finalQueries images; false: bank and queries. */
  readonly full: boolean;
  /** Called after each batch of images. */
  readonly onProgress: () => void;
}

export interface Evaluator {
  /** The result on worker 0; undefined on the others. */
  evaluate(request: EvaluationRequest): Promise<EvaluationResult | undefined>;
  /** Labelled held-out images, for pictures. */
  validation(): Promise<Dataset>;
}

/** Tokens per forward pass: bounds its activations. Batches are cut alike for every number of workers. */
const tokensPerBatch = 32_768;

interface Split {
  readonly features: Float32Array;
  readonly labels: Int32Array;
}

export function createEvaluator(spec: RunSpec, engine: EngineHost, exchange: Exchange): Evaluator {
  let opened: Promise<{ train: Dataset; validation: Dataset }> | undefined;
  const datasets = (): NonNullable<typeof opened> => {
    opened ??= openBoth(spec);
    return opened;
  };

  const featuresOf = async (
    dataset: Dataset,
    ids: readonly number[],
    name: string,
    request: EvaluationRequest,
  ): Promise<Split | undefined> => {
    const { membership, step, onProgress } = request;
    const tokens = (spec.crops.global.size / spec.model.patchSize) ** 2 + 1;
    const batchImages = Math.max(1, Math.floor(tokensPerBatch / tokens));
    const batches = Math.ceil(ids.length / batchImages);
    const width = { value: 0 };
    const mine: Float32Array[] = [];
    const labels = Int32Array.from(ids, (id) => dataset.label(id) ?? -1);
    for (let b = membership.worker; b < batches; b += membership.workers) {
      const batch = ids.slice(b * batchImages, (b + 1) * batchImages);
      const { images } = await loadEvaluationBatch(dataset, batch, spec);
      const features = await engine.call("features", { step, images, count: batch.length });
      width.value = features.length / batch.length;
      mine.push(features);
      onProgress();
    }
    const key = `evaluate.${name}`;
    if (membership.worker !== 0) {
      await exchange.send({ generation: membership.generation, step, key }, 0, bytesOf(mine));
      return undefined;
    }
    const queues = [mine];
    for (let peer = 1; peer < membership.workers; peer++) {
      const bytes = await exchange.receive({ generation: membership.generation, step, key }, peer);
      queues.push(cut(bytes, batchImages * width.value));
    }
    const features = new Float32Array(ids.length * width.value);
    for (let b = 0; b < batches; b++) {
      const piece = queues[b % membership.workers]?.[Math.floor(b / membership.workers)];
      if (!piece) throw new PaddockError("internal", `features of batch ${b} are missing`);
      features.set(piece, b * batchImages * width.value);
    }
    return { features, labels };
  };

  return {
    async evaluate(request) {
      const { train, validation } = await datasets();
      const { evaluation, seed } = spec;
      const bankCount = request.full ? evaluation.finalBank : evaluation.bank;
      const queryCount = request.full ? evaluation.finalQueries : evaluation.queries;
      const bankIds = evaluationImages(train, spec, { count: bankCount, seed });
      const queryIds = evaluationImages(validation, spec, { count: queryCount, seed });
      const bank = await featuresOf(train, bankIds, "bank", request);
      const queries = await featuresOf(validation, queryIds, "queries", request);
      if (!bank || !queries) return undefined;
      const accuracy = await engine.call("knn", {
        bank: bank.features,
        bankLabels: bank.labels,
        queries: queries.features,
        queryLabels: queries.labels,
        classes: train.classes?.length ?? 0,
      });
      return { accuracy, bank: bankIds.length, queries: queryIds.length };
    },
    validation: async () => (await datasets()).validation,
  };
}

async function openBoth(spec: RunSpec): Promise<{ train: Dataset; validation: Dataset }> {
  const train = await openDataset(spec.data, "train");
  const validation = await openDataset(spec.data, "validation");
  if (!train.classes || !validation.classes) {
    throw new PaddockError(
      "data-unavailable",
      `k-NN evaluation: expected labelled training and validation images, received none in ${spec.data.path}; use class subfolders or set evaluation.everySteps to 0`,
    );
  }
  return { train, validation };
}

function bytesOf(pieces: readonly Float32Array[]): Uint8Array {
  return Buffer.concat(pieces.map((p) => new Uint8Array(p.buffer, p.byteOffset, p.byteLength)));
}

/** Cuts little-endian fp32 bytes into pieces of `values`, the last one as long as it is. */
function cut(bytes: Uint8Array, values: number): Float32Array[] {
  const all = new Float32Array(new Uint8Array(bytes).buffer);
  const pieces: Float32Array[] = [];
  for (let start = 0; start < all.length; start += values)
    pieces.push(all.subarray(start, start + values));
  return pieces;
}
