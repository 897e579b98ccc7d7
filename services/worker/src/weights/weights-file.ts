/** A safetensors file that another program wrote: read in ranges, so that nobody needs memory for all of it. */
import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { PaddockError, type Shapes } from "@paddock/contract";
import {
  bytesOfDtype,
  decodeHeader,
  type Header,
  headerBytes,
  type TensorInfo,
} from "../checkpoint/safetensors.js";
import { decodeValues, isFloating } from "./values.js";

export interface WeightsFile {
  readonly path: string;
  readonly tensors: Shapes;
  /** What config.json beside it says, where it says it. */
  readonly heads: number | undefined;
  readonly normEps: number | undefined;
  /** Elements [first, first + elements) of a tensor as fp32; the caller owns them. Throws where one is not finite. */
  read(tensor: string, first: number, elements: number): Promise<Float32Array>;
  close(): Promise<void>;
}

const pickles = [".pth", ".pt", ".bin", ".ckpt", ".pkl"];

/**
 * `path`: the file, or a folder with model.safetensors. The caller closes it. `not-found` where there is none, `invalid-argument` where it
 * is something else.
 */
export async function openWeights(path: string): Promise<WeightsFile> {
  if (pickles.includes(extname(path).toLowerCase())) throw pickle(path);
  const file = await fileOf(path);
  const handle = await open(file, "r").catch((error: unknown) => {
    throw missing(file, error);
  });
  try {
    const header = await headerOf(handle, file);
    const tensors = new Map([...header.tensors].map(([name, { shape }]) => [name, shape]));
    return {
      path: file,
      tensors,
      ...(await configBeside(file)),
      read: (tensor, first, elements) => readValues(handle, file, header, tensor, first, elements),
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function fileOf(path: string): Promise<string> {
  const found = await stat(path).catch((error: unknown) => {
    throw missing(path, error);
  });
  return found.isDirectory() ? join(path, "model.safetensors") : path;
}

async function headerOf(handle: FileHandle, file: string): Promise<Header> {
  const { size } = await handle.stat();
  try {
    const start = await bytesAt(handle, file, 0, Math.min(8, size));
    const json = await bytesAt(handle, file, 8, headerBytes(start, size, file));
    return decodeHeader(json, size, file);
  } catch (error) {
    throw notWeights(file, error);
  }
}

async function readValues(
  handle: FileHandle,
  file: string,
  header: Header,
  tensor: string,
  first: number,
  elements: number,
): Promise<Float32Array> {
  const info = header.tensors.get(tensor) as TensorInfo;
  if (!isFloating(info.dtype)) {
    throw new PaddockError(
      "invalid-argument",
      `${file}: ${tensor}: expected F32, F16, BF16 or F64, received ${info.dtype}`,
    );
  }
  const width = bytesOfDtype[info.dtype];
  const position = header.dataStart + info.dataOffsets[0] + width * first;
  const bytes = await bytesAt(handle, file, position, elements * width);
  const values = decodeValues(bytes, info.dtype, width);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return values;
  throw new PaddockError(
    "invalid-argument",
    `${file}: ${tensor}: expected finite values, received ${values[bad]} at ${first + bad}`,
  );
}

async function bytesAt(
  handle: FileHandle,
  file: string,
  position: number,
  count: number,
): Promise<Buffer> {
  const bytes = Buffer.alloc(count);
  for (let done = 0; done < count; ) {
    const { bytesRead } = await handle.read(bytes, done, count - done, position + done);
    if (bytesRead === 0) {
      throw new PaddockError(
        "invalid-argument",
        `${file}: expected ${count} bytes at ${position}, received ${done}; did it change?`,
      );
    }
    done += bytesRead;
  }
  return bytes;
}

/** transformers: num_attention_heads, layer_norm_eps; timm: model_args.num_heads; ours: num_heads, norm_eps. */
async function configBeside(file: string): Promise<Pick<WeightsFile, "heads" | "normEps">> {
  const text = await readFile(join(dirname(file), "config.json"), "utf8").catch(() => "{}");
  const config = parsed(text);
  const inner = (config["model_args"] ?? {}) as Record<string, unknown>;
  const number = (...values: unknown[]): number | undefined =>
    values.find((value): value is number => typeof value === "number");
  return {
    heads: number(config["num_attention_heads"], config["num_heads"], inner["num_heads"]),
    normEps: number(config["layer_norm_eps"], config["norm_eps"]),
  };
}

function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Not a configuration that we know: it only tells what shapes do not.
  }
  return {};
}

function missing(path: string, cause: unknown): PaddockError {
  return new PaddockError(
    "not-found",
    `expected weights in ${path}, received: ${PaddockError.from(cause).message}; name a .safetensors file, or a folder with model.safetensors`,
    { cause },
  );
}

function notWeights(file: string, cause: unknown): PaddockError {
  return new PaddockError(
    "invalid-argument",
    `${file}: expected a whole safetensors file with tensors of F32, F16, BF16 or F64, received something else: ${PaddockError.from(cause).message}`,
    { cause },
  );
}

function pickle(path: string): PaddockError {
  const out = `${basename(path, extname(path))}.safetensors`;
  const code =
    "import torch; from safetensors.torch import save_file; " +
    `d = torch.load('${path}', map_location='cpu', weights_only=True); d = d.get('teacher', d.get('model', d)); ` +
    `save_file({k: v.clone().contiguous() for k, v in d.items()}, '${out}')`;
  return new PaddockError(
    "invalid-argument",
    `${path}: expected a safetensors file, received a pickle, which could run any code when it is read; convert it once:\n  python -c "${code}"`,
  );
}
