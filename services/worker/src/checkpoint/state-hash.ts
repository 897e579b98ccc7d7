/**
 * One number for the whole state in a checkpoint, whatever number of workers wrote it: SHA-256 over each vector's name and values in
 * the order of names ("<kind>/<unit>", "centers/<name>"), then step, loss scaler and data cursor.
 */
import { createHash } from "node:crypto";
import type { RunSpec } from "@paddock/contract";
import { layoutOf } from "@paddock/contract";
import { savedParts } from "../segment/state-io.js";
import { type Checkpoint, openCheckpoint } from "./reader.js";

export interface VerifiedCheckpoint {
  readonly step: number;
  /** Workers that wrote it. */
  readonly workers: number;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly stateHash: string;
}

/** Values that are hashed at once. */
const blockElements = 2 ** 20;

/**
 * Verifies every byte of a run's own checkpoint, then hashes its state. Errors as of `openCheckpoint`.
 * @param sha256 that manifest.json must have; null: any
 */
export async function verifyCheckpoint(
  directory: string,
  spec: RunSpec,
  sha256: string | null,
): Promise<VerifiedCheckpoint> {
  const parts = savedParts(spec, layoutOf(spec));
  const checkpoint = await openCheckpoint(directory, { parts, units: "own", sha256 });
  try {
    const { step, workers, files } = checkpoint.manifest;
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    return { step, workers, bytes, stateHash: await stateHash(checkpoint) };
  } finally {
    await checkpoint.close();
  }
}

async function stateHash(checkpoint: Checkpoint): Promise<string> {
  const { step, scaler, cursor } = checkpoint.manifest;
  const hash = createHash("sha256");
  for (const [name, elements] of checkpoint.vectors) {
    hash.update(`${name}\n`);
    const extra = await checkpoint.extra(name);
    if (extra) hash.update(extra);
    else await hashVector(checkpoint, name, elements, (values) => hash.update(values));
  }
  hash.update(JSON.stringify({ step, scale: scaler.scale, goodSteps: scaler.goodSteps, cursor }));
  return hash.digest("hex");
}

async function hashVector(
  checkpoint: Checkpoint,
  name: string,
  elements: number,
  take: (values: Float32Array) => void,
): Promise<void> {
  const [kind, unit] = split(name);
  for (let start = 0; start < elements; start += blockElements) {
    const end = Math.min(elements, start + blockElements);
    take(await checkpoint.readRange(kind, unit, start, end));
  }
}

function split(name: string): [kind: string, unit: string] {
  const at = name.indexOf("/");
  return [name.slice(0, at), name.slice(at + 1)];
}
