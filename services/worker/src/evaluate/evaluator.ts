/** Weighted k-NN of the teacher on labelled images, in the run: features on all workers, the vote on worker 0. */
import { invariant, PaddockError, type RunSpec, sizeOfModel } from "@paddock/contract";
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

interface BatchFeatures {
  readonly features: Float32Array;
  readonly labels: Int32Array;
}

interface Split {
  readonly features: Float32Array;
  readonly labels: Int32Array;
}

export interface EvaluatorDeps {
  readonly spec: RunSpec;
  readonly engine: EngineHost;
  readonly exchange: Exchange;
  /** Training images. */
  readonly train: Dataset;
}

export function createEvaluator({ spec, engine, exchange, train }: EvaluatorDeps): Evaluator {
  let opened: Promise<Dataset> | undefined;
  const openedValidation = (): Promise<Dataset> => {
    opened ??= openValidation(spec, train);
    return opened;
  };

  /** Features and labels of the images, in order, on worker 0; undefined on the others. */
  const featuresOf = async (
    dataset: Dataset,
    ids: Int32Array,
    name: string,
    request: EvaluationRequest,
  ): Promise<Split | undefined> => {
    const { membership, step, onProgress } = request;
    const { generation, worker, workers } = membership;
    const tokens = (spec.crops.global.size / spec.model.patchSize) ** 2 + 1;
    const batchImages = Math.max(1, Math.floor(tokensPerBatch / tokens));
    const mine: BatchFeatures[] = [];
    for (let b = worker; b * batchImages < ids.length; b += workers) {
      const batch = ids.subarray(b * batchImages, (b + 1) * batchImages);
      const { images, labels } = await loadEvaluationBatch(dataset, batch, spec);
      const features = await engine.call("features", { step, images, count: batch.length });
      mine.push({ features, labels });
      onProgress();
    }
    const key = (what: string) => ({ generation, step, key: `evaluate.${name}.${what}` });
    if (worker !== 0) {
      await exchange.send(key("features"), 0, bytesOf(mine.map((batch) => batch.features)));
      await exchange.send(key("labels"), 0, bytesOf(mine.map((batch) => batch.labels)));
      return undefined;
    }
    const { width } = sizeOfModel(spec.model);
    const features = new Float32Array(ids.length * width);
    const labels = new Int32Array(ids.length);
    for (let from = 0; from < workers; from++) {
      const theirs =
        from === 0
          ? {
              features: bytesOf(mine.map((m) => m.features)),
              labels: bytesOf(mine.map((m) => m.labels)),
            }
          : {
              features: await exchange.receive(key("features"), from),
              labels: await exchange.receive(key("labels"), from),
            };
      deal(theirs.features, features, batchImages * width, from, workers);
      deal(theirs.labels, labels, batchImages, from, workers);
    }
    return { features, labels };
  };

  return {
    async evaluate(request) {
      const validation = await openedValidation();
      const { evaluation, seed } = spec;
      const bankCount = request.full ? evaluation.finalBank : evaluation.bank;
      const queryCount = request.full ? evaluation.finalQueries : evaluation.queries;
      const bankIds = evaluationImages(train, { count: bankCount, seed });
      const queryIds = evaluationImages(validation, { count: queryCount, seed });
      const bank = await featuresOf(train, bankIds, "bank", request);
      const queries = await featuresOf(validation, queryIds, "queries", request);
      if (!bank || !queries) return undefined;
      const accuracy = await engine.call("knn", {
        bank: bank.features,
        bankLabels: bank.labels,
        queries: queries.features,
        queryLabels: queries.labels,
      });
      return { accuracy, bank: bankIds.length, queries: queryIds.length };
    },
    validation: openedValidation,
  };
}

async function openValidation(spec: RunSpec, train: Dataset): Promise<Dataset> {
  const validation = await openDataset(spec.data, "validation");
  if (!train.classes || !validation.classes) {
    throw new PaddockError(
      "data-unavailable",
      `k-NN evaluation: expected labelled training and validation images, received none in ${spec.data.path}; use class subfolders or set evaluation.everySteps to 0`,
    );
  }
  return validation;
}

function bytesOf(pieces: readonly (Float32Array | Int32Array)[]): Uint8Array {
  return Buffer.concat(pieces.map((p) => new Uint8Array(p.buffer, p.byteOffset, p.byteLength)));
}

/** Puts one worker's batches (every `workers`-th, from its own number on) to their places. Little-endian, 4 bytes a value. */
function deal(
  bytes: Uint8Array,
  out: Float32Array | Int32Array,
  batchValues: number,
  worker: number,
  workers: number,
): void {
  const target = new Uint8Array(out.buffer, out.byteOffset, out.byteLength);
  const batchBytes = batchValues * 4;
  let at = 0;
  for (let b = worker; b * batchBytes < target.byteLength; b += workers) {
    const piece = bytes.subarray(at, at + Math.min(batchBytes, target.byteLength - b * batchBytes));
    target.set(piece, b * batchBytes);
    at += piece.byteLength;
  }
  invariant(
    at === bytes.byteLength,
    `worker ${worker} sent ${bytes.byteLength} bytes, ${at} were expected`,
  );
}
