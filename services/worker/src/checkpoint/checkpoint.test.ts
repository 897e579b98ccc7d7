import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Layout, layoutOf, type Manifest, parseRunSpec, shardOf } from "@paddock/contract";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { openCheckpoint } from "./reader.js";
import { type ShardEntry, type WrittenFile, writeShardFile } from "./writer.js";

const root = mkdtempSync(join(tmpdir(), "paddock-checkpoint-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const spec = parseRunSpec({
  steps: 1,
  batchPerRank: 2,
  model: { width: 16, depth: 1, heads: 2, patchSize: 4, channels: 1 },
  heads: { dino: { prototypes: 24, bottleneck: 8, hidden: 16, layers: 2 } },
  data: { path: "x" },
  crops: {
    global: { size: 16, scale: [0.3, 1] },
    local: { size: 8, scale: [0.1, 0.3] },
    mean: [0],
    std: [1],
  },
});
const layout = layoutOf(spec);
const kinds = ["student", "m", "v", "teacher"];

/** The value of an element: different for every kind, unit and index. */
function valueAt(kind: string, unit: number, index: number): number {
  return Math.fround(kinds.indexOf(kind) * 1e6 + unit * 1e4 + index + 0.25);
}

async function save(directory: string, workers: number): Promise<Manifest> {
  const files: (WrittenFile & { worker: number })[] = [];
  for (let worker = 0; worker < workers; worker++) {
    const entries: ShardEntry[] = kinds.flatMap((kind) =>
      layout.units.map((unit, u) => {
        const range = shardOf(unit.elements, worker, workers);
        const data = Float32Array.from({ length: range.end - range.start }, (_, i) =>
          valueAt(kind, u, range.start + i),
        );
        return { name: `${kind}/${unit.name}`, data, range };
      }),
    );
    if (worker === 0) entries.push({ name: "centers/dino", data: Float32Array.of(1, 2, 3) });
    const written = await writeShardFile({
      directory,
      step: 7,
      generation: 2,
      worker,
      workers,
      entries,
    });
    files.push({ ...written, worker });
  }
  const manifest: Manifest = {
    format: "paddock-checkpoint",
    version: 1,
    runId: "r",
    step: 7,
    generation: 2,
    workers,
    logicalRanks: 4,
    parameters: layout.parameters,
    units: layout.units.map(({ name, elements }) => ({ name, elements })),
    files,
    scaler: { scale: 1, goodSteps: 0 },
    cursor: 0,
  };
  writeFileSync(join(directory, "manifest.json"), JSON.stringify(manifest));
  return manifest;
}

let folders = 0;
const folder = (): string => join(root, String(folders++));

test("what W workers wrote, any W' workers read", async () => {
  for (const [from, to] of [
    [1, 3],
    [3, 2],
    [5, 4],
  ] as const) {
    const directory = folder();
    await save(directory, from);
    const checkpoint = await openCheckpoint(directory, layout);
    for (let worker = 0; worker < to; worker++) {
      for (const [u, unit] of layout.units.entries()) {
        const { start, end } = shardOf(unit.elements, worker, to);
        for (const kind of kinds) {
          const values = await checkpoint.readRange(kind, unit.name, start, end);
          expect(values).toEqual(
            Float32Array.from({ length: end - start }, (_, i) => valueAt(kind, u, start + i)),
          );
        }
      }
    }
    expect(await checkpoint.extra("centers/dino")).toEqual(Float32Array.of(1, 2, 3));
    expect(await checkpoint.extra("centers/ibot")).toBeUndefined();
    await checkpoint.close();
  }
});

test("the sha256 and size that are reported are those of the file, and no temporary file stays", async () => {
  const directory = folder();
  const { files } = await save(directory, 2);
  for (const file of files) {
    const bytes = readFileSync(join(directory, file.name));
    expect(bytes.length).toBe(file.bytes);
    expect(createHash("sha256").update(bytes).digest("hex")).toBe(file.sha256);
  }
  expect(readdirSync(directory).sort()).toEqual([
    "manifest.json",
    "shard-0-of-2.safetensors",
    "shard-1-of-2.safetensors",
  ]);
});

test("every flipped bit and every truncation is found before anything is loaded", async () => {
  const directory = folder();
  await save(directory, 2);
  const path = join(directory, "shard-1-of-2.safetensors");
  const good = readFileSync(path);
  await fc.assert(
    fc.asyncProperty(fc.nat(good.length - 1), fc.nat(7), async (at, bit) => {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] as number) ^ (1 << bit);
      writeFileSync(path, bad);
      await expect(openCheckpoint(directory, layout)).rejects.toMatchObject({
        code: "checkpoint-corrupt",
      });
    }),
    { numRuns: 40 },
  );
  for (const length of [0, 7, 8, 100, good.length - 1]) {
    writeFileSync(path, good.subarray(0, length));
    await expect(openCheckpoint(directory, layout)).rejects.toThrow(/expected \d+ bytes, received/);
  }
  writeFileSync(path, good);
  await (await openCheckpoint(directory, layout)).close();
});

test("a damaged header behind a matching hash is refused, not trusted", async () => {
  const directory = folder();
  const manifest = await save(directory, 1);
  const path = join(directory, "shard-0-of-1.safetensors");
  const good = readFileSync(path);
  const breakages: ((bytes: Buffer) => Buffer)[] = [
    (bytes) => Buffer.concat([Buffer.from("ffffffffffffff7f", "hex"), bytes.subarray(8)]),
    (bytes) => Buffer.from(bytes.toString("latin1").replace('"F32"', '"F99"'), "latin1"),
    (bytes) =>
      Buffer.from(
        bytes.toString("latin1").replace('"data_offsets":[0,', '"data_offsets":[4,'),
        "latin1",
      ),
    (bytes) => bytes.subarray(0, bytes.length - 4),
  ];
  for (const breakage of breakages) {
    const bad = breakage(good);
    writeFileSync(path, bad);
    const sha256 = createHash("sha256").update(bad).digest("hex");
    const files = [{ name: "shard-0-of-1.safetensors", bytes: bad.length, sha256, worker: 0 }];
    writeFileSync(join(directory, "manifest.json"), JSON.stringify({ ...manifest, files }));
    await expect(openCheckpoint(directory, layout)).rejects.toMatchObject({
      code: "checkpoint-corrupt",
    });
  }
});

test("a missing shard, another model's checkpoint, an incomplete folder and a name that leaves it are refused", async () => {
  const directory = folder();
  const manifest = await save(directory, 2);
  const write = (changes: Partial<Manifest>): void =>
    writeFileSync(join(directory, "manifest.json"), JSON.stringify({ ...manifest, ...changes }));
  write({ files: manifest.files.slice(0, 1) });
  await expect(openCheckpoint(directory, layout)).rejects.toThrow(/elements/);
  write({ files: [{ ...(manifest.files[0] as Manifest["files"][0]), name: "../x" }] });
  await expect(openCheckpoint(directory, layout)).rejects.toThrow(/leaves/);
  write({});
  const other: Layout = { ...layout, units: layout.units.slice(1) };
  await expect(openCheckpoint(directory, other)).rejects.toThrow(/another model/);
  rmSync(join(directory, "manifest.json"));
  await expect(openCheckpoint(directory, layout)).rejects.toMatchObject({ code: "not-found" });
});

test("a disk that refuses is said so, with the path", async () => {
  const blocked = join(root, "a-file");
  writeFileSync(blocked, "");
  await expect(
    writeShardFile({
      directory: join(blocked, "x"),
      step: 1,
      generation: 1,
      worker: 0,
      workers: 1,
      entries: [],
    }),
  ).rejects.toMatchObject({ code: "disk-unavailable" });
});
