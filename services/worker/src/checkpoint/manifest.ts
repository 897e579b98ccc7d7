/** manifest.json: read, and believed only as far as its shape goes. What it says about files is checked against them. */
import { createHash } from "node:crypto";
import type { Manifest, Unit } from "@paddock/contract";
import { PaddockError } from "@paddock/contract";
import { childOf, storeOf } from "@paddock/service-kit/checkpoint-store";

/** `checkpoint-corrupt`, with the file or folder, what was expected, what was received. */
export function corrupt(where: string, what: string, cause?: unknown): PaddockError {
  return new PaddockError("checkpoint-corrupt", `${where}: ${what}`, { cause });
}

/** A thousand workers and a thousand units are half a megabyte. */
const maxManifestBytes = 16 * 2 ** 20;

/**
 * The manifest in `directory`; `not-found` when there is none, `checkpoint-corrupt` when it is none, or another one than that with
 * `sha256` (null: any).
 */
export async function readManifest(directory: string, sha256: string | null): Promise<Manifest> {
  const path = childOf(directory, "manifest.json");
  const text = await storeOf(directory)
    .readText(path, maxManifestBytes)
    .catch((error: unknown) => {
      if (PaddockError.from(error).code !== "not-found") throw error;
      throw new PaddockError(
        "not-found",
        `expected a complete checkpoint in ${directory}, found no manifest.json; is it a folder checkpoints/<step> of a run?`,
        { cause: error },
      );
    });
  const received = createHash("sha256").update(text).digest("hex");
  if (sha256 !== null && received !== sha256) {
    throw corrupt(path, `expected SHA-256 ${sha256}, received ${received}; was it replaced?`);
  }
  const manifest = parseJson(path, text) as Manifest;
  if (manifest?.format !== "paddock-checkpoint" || manifest.version !== 1) {
    throw corrupt(path, 'expected format "paddock-checkpoint", version 1, received something else');
  }
  const files = Array.isArray(manifest.files) && manifest.files.every(isFile);
  const units = Array.isArray(manifest.units) && manifest.units.every(isUnit);
  if (!files || !units || !isCount(manifest.step) || !isCount(manifest.workers)) {
    throw corrupt(path, "expected step, workers, files and units, received others");
  }
  // What a manifest says must not lead out of its folder.
  const odd = manifest.files.find(({ name }) => !isPlainName(name));
  if (odd) throw corrupt(path, `expected plain file names, received ${JSON.stringify(odd.name)}`);
  return manifest;
}

/** own: exactly these units; part: these among others. */
export type UnitCheck = "own" | "part";

/** `checkpoint-corrupt` unless the manifest's units are those expected. */
export function checkUnits(
  directory: string,
  manifest: Manifest,
  units: readonly Unit[],
  check: UnitCheck,
): void {
  const expected = units.map(({ name, elements }) => `${name}:${elements}`);
  const wanted = new Set(units.map(({ name }) => name));
  const received = manifest.units
    .filter(({ name }) => check === "own" || wanted.has(name))
    .map(({ name, elements }) => `${name}:${elements}`);
  const at = expected.findIndex((unit, i) => unit !== received[i]);
  if (at < 0 && expected.length === received.length) return;
  const i = at < 0 ? expected.length : at;
  throw corrupt(
    directory,
    `expected unit ${i} to be ${expected[i] ?? "absent"} (name:elements), received ${received[i] ?? "none"}; was it written by a run with another model?`,
  );
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw corrupt(path, "expected JSON, received something else", error);
  }
}

function isFile(value: unknown): boolean {
  const { name, bytes, sha256, ghash = "", worker } = (value ?? {}) as Record<string, unknown>;
  const texts = [name, sha256, ghash].every((text) => typeof text === "string");
  return texts && isCount(bytes) && isCount(worker);
}

/** Whether a file of that name lies in the folder itself. */
function isPlainName(name: string): boolean {
  return /^\w[\w.-]{0,127}$/.test(name);
}

function isUnit(value: unknown): boolean {
  const { name, elements } = (value ?? {}) as Record<string, unknown>;
  return typeof name === "string" && isCount(elements);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
