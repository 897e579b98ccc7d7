/** Reads a whole checkpoint through the product's own reader: every byte is verified, and the state gets one number. */
import { createHash } from "node:crypto";
import { layoutOf, type RunSpec, statePartsOf } from "@paddock/contract";
import { initialCenters } from "@paddock/model";
import { openCheckpoint } from "./reader.js";

export interface VerifiedCheckpoint {
  readonly step: number;
  /** Workers that wrote it. */
  readonly workers: number;
  /** Of the shard files. */
  readonly bytes: number;
  /** SHA-256 over every unit of student, m, v, teacher (and a frozen teacher) in the layout's order, centres, scaler and cursor: the same whoever wrote it. */
  readonly stateHash: string;
}

/**
 * @param sha256 of manifest.json, as the ledger has it; null: not checked. Errors: `checkpoint-corrupt`, `not-found`
 */
export async function verifyCheckpoint(
  directory: string,
  spec: RunSpec,
  sha256: string | null,
): Promise<VerifiedCheckpoint> {
  const parts = statePartsOf(spec, layoutOf(spec)).filter(({ saved }) => saved);
  const checkpoint = await openCheckpoint(directory, { parts, units: "own", sha256 });
  try {
    const { manifest } = checkpoint;
    const hash = createHash("sha256");
    for (const { kind, units } of parts) {
      for (const { name, elements } of units) {
        hash.update(`${kind}/${name}\n`);
        hash.update(bytesOf(await checkpoint.readRange(kind, name, 0, elements)));
      }
    }
    for (const name of Object.keys(initialCenters(spec))) {
      const values = await checkpoint.extra(`centers/${name}`);
      if (values) hash.update(`centers/${name}\n`).update(bytesOf(values));
    }
    const { step, scaler, cursor, workers, files } = manifest;
    hash.update(JSON.stringify({ step, scale: scaler.scale, goodSteps: scaler.goodSteps, cursor }));
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    return { step, workers, bytes, stateHash: hash.digest("hex") };
  } finally {
    await checkpoint.close();
  }
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
