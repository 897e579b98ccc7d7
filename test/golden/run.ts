/** Runs golden files on the active engine. */
import { readdirSync, statSync } from "node:fs";
import * as path from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import { Check, type Failure } from "./check.js";
import { type Golden, readGolden } from "./file.js";
import type { Kind, KindContext } from "./kind.js";
import { kinds } from "./kinds/index.js";

export interface FileResult {
  /** Path below the folder that was asked for. */
  readonly file: string;
  readonly kind: string;
  /** Comparisons made. */
  readonly tensors: number;
  /** Largest difference over tolerance. */
  readonly worst: number;
  readonly pass: boolean;
  readonly failures: readonly Failure[];
}

/** All `.safetensors` files in and below a folder, or the file itself, sorted. @throws RangeError if there are none. */
export function goldenFiles(folder: string): string[] {
  if (statSync(folder).isFile()) return [folder];
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".safetensors"))
    .sort()
    .map((name) => path.join(folder, name));
  if (files.length === 0)
    throw new RangeError(`${folder}: expected .safetensors files, found none`);
  return files;
}

/** Never throws: whatever goes wrong is a failure of the file. */
export async function runFile(
  root: string,
  file: string,
  context: KindContext,
): Promise<FileResult> {
  const name = path.relative(root, file) || path.basename(file);
  let golden: Golden;
  let kind: Kind;
  try {
    golden = readGolden(file);
    kind = kindOf(golden);
  } catch (error) {
    return failed(name, "unknown", error);
  }
  const check = new Check(golden);
  const before = tf.memory().numTensors;
  try {
    await kind.run(golden, check, context);
    const left = tf.memory().numTensors - before;
    check.holds("memory", left === 0, `${left} tensors were not disposed`);
  } catch (error) {
    tf.disposeVariables();
    return failed(name, kind.name, error);
  }
  const { tensors, worst, failures } = check.outcome();
  return { file: name, kind: kind.name, tensors, worst, pass: failures.length === 0, failures };
}

function kindOf(golden: Golden): Kind {
  const matching = kinds.filter((kind) => kind.matches(golden));
  const [kind] = matching;
  if (kind && matching.length === 1) return kind;
  const names = matching.map((match) => match.name).join(", ") || "none";
  throw new RangeError(
    `expected one kind of golden file to understand its config, received ${names}`,
  );
}

function failed(file: string, kind: string, error: unknown): FileResult {
  const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const failures = [{ tensor: "(whole file)", reason }];
  return { file, kind, tensors: 0, worst: Number.POSITIVE_INFINITY, pass: false, failures };
}
