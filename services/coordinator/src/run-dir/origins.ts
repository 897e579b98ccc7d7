/** The checkpoints of other runs that a spec names: their hashes are written down, and where a run starts that goes on from one. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { type Manifest, PaddockError, parseRunSpec, type RunSpec } from "@paddock/contract";
import { childOf, isS3, storeOf } from "@paddock/service-kit/checkpoint-store";
import type { RunStart } from "../run/durable.js";
import { maxManifestBytes } from "./checkpoints.js";

/**
 * The spec with the SHA-256 of every checkpoint that it names. `not-found` when one is not there; `checkpoint-corrupt` when it is not
 * the one whose hash the spec gives already.
 */
export async function pinOrigins(spec: RunSpec): Promise<RunSpec> {
  const pinned = structuredClone(spec) as Mutable;
  for (const origin of [pinned.init, pinned.distillation, pinned.loss.gram]) {
    if (!origin || origin.checkpoint === null) continue;
    const received = await hashOf(origin.checkpoint);
    if (origin.sha256 !== null && origin.sha256 !== received) {
      throw new PaddockError(
        "checkpoint-corrupt",
        `${origin.checkpoint}: expected SHA-256 ${origin.sha256}, received ${received}; was it replaced? Give the checkpoint that the run was started with`,
      );
    }
    origin.sha256 = received;
  }
  return parseRunSpec(pinned);
}

/** The spec of a resumed run with the hashes that were written down when it started: the files may be gone by now. */
export function withPinsOf(recorded: RunSpec, spec: RunSpec): RunSpec {
  const pinned = structuredClone(spec) as Mutable;
  const pairs = [
    [pinned.init, recorded.init],
    [pinned.distillation, recorded.distillation],
    [pinned.loss.gram, recorded.loss.gram],
  ] as const;
  for (const [mine, theirs] of pairs) {
    if (mine && theirs && mine.sha256 === null) mine.sha256 = theirs.sha256;
  }
  return parseRunSpec(pinned);
}

/** Step, loss scaler and left out data of the checkpoint that the run goes on from; undefined: from the beginning. */
export async function startOf(spec: RunSpec): Promise<RunStart | undefined> {
  if (spec.init?.load !== "resume") return undefined;
  const { checkpoint } = spec.init;
  const manifest = JSON.parse(await readManifest(checkpoint)) as Manifest;
  if (manifest.step >= spec.steps) {
    throw new PaddockError(
      "invalid-spec",
      `steps: expected more than the ${manifest.step} of ${checkpoint}, which init.load: resume goes on from, received ${spec.steps}`,
    );
  }
  const { step, scaler, leftOut } = manifest;
  return { step, scaler, ...(leftOut ? { leftOut } : {}) };
}

/** Of a checkpoint directory's manifest, which vouches for its files; or of a weights file. */
async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  if (isS3(path) || (await isFolder(path))) {
    return hash.update(await readManifest(path)).digest("hex");
  }
  try {
    await pipeline(createReadStream(path), hash);
  } catch (error) {
    throw missing(path, error);
  }
  return hash.digest("hex");
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (entry) => entry.isDirectory(),
    (error: unknown) => {
      throw missing(path, error);
    },
  );
}

async function readManifest(directory: string): Promise<string> {
  const path = childOf(directory, "manifest.json");
  return await storeOf(directory)
    .readText(path, maxManifestBytes)
    .catch((thrown: unknown) => {
      throw PaddockError.from(thrown).code === "not-found" ? missing(path, thrown) : thrown;
    });
}

function missing(path: string, cause: unknown): PaddockError {
  return new PaddockError(
    "not-found",
    `expected a checkpoint at ${path}, received: ${PaddockError.from(cause).message}; name a folder checkpoints/<step> of a run`,
    { cause },
  );
}

interface Origin {
  readonly checkpoint: string | null;
  sha256: string | null;
}

interface Mutable {
  readonly init: Origin | null;
  readonly distillation: Origin | null;
  readonly loss: { readonly gram: Origin | null };
}
