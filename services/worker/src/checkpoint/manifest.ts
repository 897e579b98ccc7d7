/** manifest.json: read, and believed only as far as its shape goes. What it says about files is checked against them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Layout, Manifest } from "@paddock/contract";
import { PaddockError } from "@paddock/contract";

/** `checkpoint-corrupt`, with the file or folder, what was expected, what was received. */
export function corrupt(where: string, what: string, cause?: unknown): PaddockError {
  return new PaddockError("checkpoint-corrupt", `${where}: ${what}`, { cause });
}

/** The manifest in `directory`; `not-found` when there is none, `checkpoint-corrupt` when it is none. */
export async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, "manifest.json");
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new PaddockError(
      "not-found",
      `expected a complete checkpoint in ${directory}, found no manifest.json; is it a folder checkpoints/<step> of a run?`,
      { cause: error },
    );
  });
  const manifest = parseJson(path, text) as Manifest;
  if (manifest?.format !== "paddock-checkpoint" || manifest.version !== 1) {
    throw corrupt(path, 'expected format "paddock-checkpoint", version 1, received something else');
  }
  const files = Array.isArray(manifest.files) && manifest.files.every(isFile);
  const units = Array.isArray(manifest.units) && manifest.units.every(isUnit);
  if (!files || !units || !isCount(manifest.step) || !isCount(manifest.workers)) {
    throw corrupt(path, "expected step, workers, files and units, received others");
  }
  return manifest;
}

/** `checkpoint-corrupt` unless the manifest's units are those of the layout. */
export function checkUnits(directory: string, manifest: Manifest, layout: Layout): void {
  const expected = layout.units.map(({ name, elements }) => `${name}:${elements}`);
  const received = manifest.units.map(({ name, elements }) => `${name}:${elements}`);
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
  const { name, bytes, sha256, worker } = (value ?? {}) as Record<string, unknown>;
  const texts = typeof name === "string" && typeof sha256 === "string";
  return texts && isCount(bytes) && isCount(worker);
}

function isUnit(value: unknown): boolean {
  const { name, elements } = (value ?? {}) as Record<string, unknown>;
  return typeof name === "string" && isCount(elements);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
