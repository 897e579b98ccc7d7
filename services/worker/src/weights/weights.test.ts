import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  dialectNamed,
  layoutOf,
  type Manifest,
  parseRunSpec,
  type RunSpec,
  shapeOf,
  shardOf,
} from "@paddock/contract";
import { initialUnit } from "@paddock/model";
import { afterAll, expect, test } from "vitest";
import { encodeHeader } from "../checkpoint/safetensors.js";
import { writeShardFile } from "../checkpoint/writer.js";
import { convertWeights } from "./convert-weights.js";
import { describeWeights } from "./describe-weights.js";
import { exportWeights } from "./export-weights.js";
import { loadBackbone } from "./load-backbone.js";
import { decodeValues } from "./values.js";
import { openWeights } from "./weights-file.js";

const root = mkdtempSync(join(tmpdir(), "paddock-weights-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
const folder = (): string => join(root, String(folders++));

function specOf(model: Readonly<Record<string, unknown>> = {}, size = 16): RunSpec {
  return parseRunSpec({
    seed: 4,
    steps: 1,
    batchPerRank: 2,
    model: { width: 16, depth: 2, heads: 2, patchSize: 4, registers: 2, ...model },
    heads: { dino: { prototypes: 24, bottleneck: 8, hidden: 16, layers: 2 } },
    data: { path: "x" },
    crops: { global: { size, scale: [0.3, 1] }, local: { size: 8, scale: [0.1, 0.3] } },
  });
}
const spec = specOf();
const layout = layoutOf(spec);
const parameters = layout.units.flatMap((unit) => unit.parameters);

/** Everywhere another value, zero in the padding. */
function flatOf(kind: "student" | "teacher", unit: number): Float32Array {
  const { elements, parameters: own } = layout.units[unit] as (typeof layout.units)[number];
  const flat = new Float32Array(elements);
  const base = (kind === "teacher" ? 100 : 0) + unit;
  for (const p of own) {
    for (let i = p.offset; i < p.offset + p.elements; i++) flat[i] = base + i / 65536;
  }
  return flat;
}

async function writeCheckpoint(workers: number): Promise<string> {
  const directory = folder();
  const files: Manifest["files"][number][] = [];
  for (let worker = 0; worker < workers; worker++) {
    const entries = (["student", "teacher"] as const).flatMap((kind) =>
      layout.units.map((unit, u) => {
        const range = shardOf(unit.elements, worker, workers);
        return {
          name: `${kind}/${unit.name}`,
          data: flatOf(kind, u).slice(range.start, range.end),
          range,
        };
      }),
    );
    const file = await writeShardFile({
      directory,
      step: 3,
      generation: 1,
      worker,
      workers,
      entries,
    });
    files.push({ ...file, worker });
  }
  const units = layout.units.map(({ name, elements }) => ({ name, elements }));
  const manifest: Manifest = {
    format: "paddock-checkpoint",
    version: 1,
    runId: "r",
    step: 3,
    generation: 1,
    workers,
    logicalRanks: 4,
    parameters: layout.parameters,
    units,
    files,
    scaler: { scale: 1, goodSteps: 0 },
    cursor: 0,
  };
  writeFileSync(join(directory, "manifest.json"), JSON.stringify(manifest));
  return directory;
}

type Shards = Record<string, Float32Array>;

async function load(file: string, worker: number, workers: number, sha256: string | null = null) {
  const shards = (): Shards =>
    Object.fromEntries(
      layout.units.map(({ name, elements }) => {
        const { start, end } = shardOf(elements, worker, workers);
        return [name, new Float32Array(end - start).fill(-1)];
      }),
    );
  const state = { student: shards(), teacher: shards() };
  const membership = { worker, workers };
  const target = { path: file, sha256, spec, layout, membership, state };
  const done = loadBackbone(target);
  return done.then(
    () => state,
    (error: Error) => ({ ...state, error }),
  );
}

const exported = async (format: "official" | "transformers" | "timm", workers = 3) => {
  const out = folder();
  const checkpoint = await writeCheckpoint(workers);
  const options = { checkpoint, spec, side: "teacher" as const, format, out, force: false };
  return { out, options, result: await exportWeights(options) };
};

test("what 3 workers saved and an export wrote, 1, 2 and 5 workers load: backbones of both sides, no head", async () => {
  for (const format of ["official", "transformers"] as const) {
    const { out, result } = await exported(format);
    expect(result.leftOut).toEqual([]);
    for (const workers of [1, 2, 5]) {
      for (let worker = 0; worker < workers; worker++) {
        const state = await load(join(out, "model.safetensors"), worker, workers);
        for (const [u, unit] of layout.units.entries()) {
          const { start, end } = shardOf(unit.elements, worker, workers);
          const expected =
            unit.submodule === "backbone"
              ? flatOf("teacher", u).slice(start, end)
              : new Float32Array(end - start).fill(-1);
          expect([unit.name, state.student[unit.name]]).toEqual([unit.name, expected]);
          expect([unit.name, state.teacher[unit.name]]).toEqual([unit.name, expected]);
        }
      }
    }
  }
});

test("a mask token that the file lacks is drawn from the seed, the position of cls is zero", async () => {
  const { out } = await exported("timm");
  const { student } = await load(out, 0, 1);
  const embed = layout.units[0] as (typeof layout.units)[number];
  const of = (name: string, flat: Float32Array): Float32Array => {
    const found = parameters.find((parameter) => parameter.name === `backbone.${name}`);
    return flat.slice(found?.offset, (found?.offset ?? 0) + (found?.elements ?? 0));
  };
  const loaded = student["embed"] as Float32Array;
  expect(of("mask_token", loaded)).toEqual(of("mask_token", initialUnit(spec, embed)));
  expect(of("pos_embed", loaded).subarray(0, 16)).toEqual(new Float32Array(16));
  expect(of("register_tokens", loaded)).toEqual(of("register_tokens", flatOf("teacher", 0)));
});

test("nothing of a file is loaded that is not whole, finite, or the one that was pinned", async () => {
  const { out } = await exported("official");
  const file = join(out, "model.safetensors");
  const untouched = (result: Awaited<ReturnType<typeof load>>): string => {
    for (const shard of Object.values(result.student))
      expect(shard.every((x) => x === -1)).toBe(true);
    return "error" in result ? result.error.message : "loaded";
  };
  const pinned = untouched(await load(file, 0, 1, "0".repeat(64)));
  expect(pinned).toContain(`expected SHA-256 ${"0".repeat(64)}`);
  const bytes = readFileSync(file);
  writeFileSync(file, bytes.subarray(0, bytes.length - 4));
  expect(untouched(await load(file, 0, 1))).toContain("expected a whole safetensors file");
  writeFileSync(file, bytes);
  bytes.writeFloatLE(Number.NaN, bytes.length - 4);
  writeFileSync(file, bytes);
  await expect(describeWeights(file)).rejects.toThrow("expected finite values, received NaN");
});

test("an export is whole or not there, and replaces nothing that it is not told to", async () => {
  const { out, options } = await exported("timm");
  await expect(exportWeights(options)).rejects.toThrow("replace it with --force");
  writeFileSync(join(out, "stale"), "");
  await exportWeights({ ...options, force: true });
  expect(readdirSync(out).sort()).toEqual(["config.json", "model.safetensors"]);
  const broken = folder();
  const [shard] = readdirSync(options.checkpoint).filter((name) => name.startsWith("shard"));
  const path = join(options.checkpoint, shard as string);
  const bytes = readFileSync(path);
  bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
  writeFileSync(path, bytes);
  await expect(exportWeights({ ...options, out: broken })).rejects.toThrow("sha256");
  expect(existsSync(broken)).toBe(false);
  expect(readdirSync(root).filter((name) => name.endsWith(".tmp"))).toEqual([]);
});

test("a file describes itself; a pickle is refused with the line that converts it", async () => {
  const { out } = await exported("transformers");
  const described = await describeWeights(out);
  expect(described.title).toBe("transformers Dinov2WithRegistersModel");
  expect(described.model).toMatchObject({
    width: 16,
    depth: 2,
    heads: 2,
    registers: 2,
  });
  expect(described.cropSize).toBe(16);
  const backbone = parameters.filter(({ name }) => name.startsWith("backbone."));
  expect(described.parameters).toBe(backbone.reduce((sum, { elements }) => sum + elements, 0));
  await expect(describeWeights(join(out, "x.pth"))).rejects.toThrow(
    /python -c .*weights_only=True/,
  );
  await expect(describeWeights(out, specOf({ depth: 3 }))).rejects.toThrow(
    "model.depth: expected 3",
  );
});

test("masks and periods of an official DINOv3 file must be the spec's; periods may be of bf16", async () => {
  const v3 = specOf({ positions: "rope", maskKeyBias: true, heads: 1 });
  const tensors = dialectNamed("dinov3").tensors(shapeOf(v3));
  const fileWith = (period: number, mask: number): string => {
    const out = `${folder()}.safetensors`;
    const header = encodeHeader(
      new Map(tensors.map(({ name, shape }) => [name, { dtype: "F32", shape }])),
      {},
    );
    const data = tensors.flatMap(({ name, shape }) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      if (name.endsWith("periods")) values.set([1, 3.162, period, 31.62]);
      if (name.endsWith("bias_mask")) values.fill(1).fill(mask, 16, 32);
      return [Buffer.from(values.buffer)];
    });
    writeFileSync(out, Buffer.concat([header, ...data]));
    return out;
  };
  await expect(describeWeights(fileWith(10.05, 0), v3)).resolves.toMatchObject({ initial: [] });
  await expect(describeWeights(fileWith(11, 0), v3)).rejects.toThrow(
    "set model.rope to the file's",
  );
  await expect(describeWeights(fileWith(10, 1), v3)).rejects.toThrow("bias_mask: expected 0 at 16");
});

test("positions resampled to another grid fit crops of that size; the others stay as they are", async () => {
  const { out } = await exported("transformers");
  const there = folder();
  await convertWeights({ path: out, out: there, force: false, grid: 6 });
  const [before, after] = [await openWeights(out), await openWeights(there)];
  try {
    expect(after.heads).toBe(2);
    const positions = await after.read("pos_embed", 0, 37 * 16);
    const old = await before.read("embeddings.position_embeddings", 0, 17 * 16);
    expect(positions.subarray(0, 16)).toEqual(old.subarray(0, 16));
    const mean = (values: Float32Array): number =>
      values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean(positions.subarray(16))).toBeCloseTo(mean(old.subarray(16)), 3);
    expect(await after.read("cls_token", 0, 16)).toEqual(
      await before.read("embeddings.cls_token", 0, 16),
    );
  } finally {
    await before.close();
    await after.close();
  }
  expect((await describeWeights(there, specOf({}, 24))).cropSize).toBe(16 * 1.5);
});

test("halves, bfloat16s and doubles are read as what they are, also unaligned", () => {
  const halves = Uint8Array.of(9, 0x00, 0x3c, 0x01, 0x00, 0xff, 0x7b, 0x00, 0xc0);
  expect(decodeValues(halves.subarray(1), "F16", 2)).toEqual(
    Float32Array.of(1, 2 ** -24, 65504, -2),
  );
  const brains = Uint8Array.of(0x80, 0x3f, 0x49, 0xc0);
  expect(decodeValues(brains, "BF16", 2)).toEqual(Float32Array.of(1, -3.140625));
  const doubles = new Uint8Array(Float64Array.of(0.1, -7).buffer);
  expect(decodeValues(doubles, "F64", 8)).toEqual(Float32Array.of(0.1, -7));
});
