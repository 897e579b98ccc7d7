/** Writes a folder with model.safetensors and configuration files: all of it, or nothing. */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { PaddockError } from "@paddock/contract";
import { encodeHeader } from "../checkpoint/safetensors.js";

export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Made when its turn comes, so that one tensor is in memory at a time. */
  values(): Promise<Float32Array>;
}

export interface WeightsFolder {
  /** To be made. */
  readonly out: string;
  /** Replace `out` if it exists. */
  readonly force: boolean;
  readonly tensors: readonly NamedTensor[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Written as JSON. */
  readonly files: Readonly<Record<string, unknown>>;
}

/** Throws `already-exists`, or `disk-unavailable`; then nothing has changed. */
export async function writeWeights(folder: WeightsFolder): Promise<void> {
  const { out, force, tensors, metadata, files } = folder;
  if (existsSync(out) && !force) {
    throw new PaddockError(
      "already-exists",
      `${out}: expected nothing there, found something; name another folder with --out, or replace it with --force`,
    );
  }
  const temporary = join(dirname(out), `.export-${randomUUID()}.tmp`);
  try {
    await mkdir(temporary, { recursive: true });
    await writeTensors(join(temporary, "model.safetensors"), tensors, metadata);
    for (const [name, value] of Object.entries(files)) {
      await writeFile(join(temporary, name), jsonText(value));
    }
    await replace(temporary, out);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error instanceof PaddockError ? error : refused(out, error);
  }
}

/** transformers takes no integer for these: a whole number needs its ".0", which JavaScript does not print. */
const wholeFloat = /^(\s*"(?:rope_theta|layer_norm_eps)": -?\d+)(,?)$/gm;

function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2).replace(wholeFloat, "$1.0$2")}\n`;
}

async function writeTensors(
  path: string,
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const entries = tensors.map(({ name, shape }) => [name, { dtype: "F32", shape }] as const);
  const handle = await open(path, "wx", 0o644);
  try {
    await writeAll(handle, encodeHeader(new Map(entries), metadata));
    for (const tensor of tensors) {
      const values = await tensor.values();
      await writeAll(handle, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    done += (await handle.write(bytes, done, bytes.byteLength - done)).bytesWritten;
  }
}

/** An older folder goes away only after the new one is in its place. */
async function replace(temporary: string, out: string): Promise<void> {
  if (!existsSync(out)) return rename(temporary, out);
  const old = join(dirname(out), `.replaced-${randomUUID()}.tmp`);
  await rename(out, old);
  try {
    await rename(temporary, out);
  } catch (error) {
    await rename(old, out);
    throw error;
  }
  await rm(old, { recursive: true, force: true });
}

function refused(out: string, cause: unknown): PaddockError {
  return new PaddockError(
    "disk-unavailable",
    `expected to write ${out}, received: ${PaddockError.from(cause).message}; name another folder with --out`,
    { cause },
  );
}
