/** Loads in one pass, saves beside the training. */

import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Layout, Manifest, ManifestFile } from "@paddock/contract";
import { PieceMemory, pieceBytes } from "@paddock/service-kit/checkpoint-store";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import type { Wanted } from "./file-content.js";
import { loadCheckpoint } from "./load.js";
import { entriesOf, expected, layoutOfSizes, save, valueAt, wantedOf } from "./testing.js";
import { checkpointCalls } from "./thread-work.js";
import { writeShardFile } from "./writer.js";

const root = mkdtempSync(join(tmpdir(), "paddock-load-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
const folder = (): string => join(root, String(folders++));
const small = layoutOfSizes([1000, 77]);

function expectValues(of: Layout, wanted: readonly Wanted[]): void {
  for (const { kind, unit, start, target } of wanted) {
    const u = of.units.findIndex(({ name }) => name === unit);
    const wrong = target.findIndex((value, i) => value !== valueAt(kind, u, start + i));
    expect(wrong, `${kind}/${unit}`).toBe(-1);
  }
}

test("what W workers wrote, any W' workers load, their own shards and another's at once", async () => {
  const workers = fc.integer({ min: 1, max: 7 });
  const sizes = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(sizes, workers, workers, fc.nat(6), async (units, from, to, shadow) => {
      const directory = folder();
      const of = layoutOfSizes(units);
      await save(directory, from, of);
      for (let worker = 0; worker < to; worker++) {
        const wanted = [...wantedOf(of, worker, to), ...wantedOf(of, shadow % to, to)];
        const { extras } = await loadCheckpoint(directory, expected(of), wanted);
        expectValues(of, wanted);
        expect(extras).toEqual(new Map([["centers/dino", Float32Array.of(1, 2, 3)]]));
      }
    }),
    { numRuns: 15 },
  );
});

test("shards and header larger than a block come over whole", async () => {
  const directory = folder();
  const of = layoutOfSizes([3_000_000, 1, 2_500_001]);
  await save(directory, 2, of);
  expect(statSync(join(directory, "shard-0-of-2.safetensors")).size).toBeGreaterThan(
    2 * pieceBytes,
  );
  for (const worker of [0, 1, 2]) {
    const wanted = wantedOf(of, worker, 3);
    await loadCheckpoint(directory, expected(of), wanted);
    expectValues(of, wanted);
  }
});

test("each flipped bit of any file is found by one of the workers that load it", async () => {
  const directory = folder();
  await save(directory, 3, small);
  const manifest = readFileSync(join(directory, "manifest.json"));
  const sha256 = createHash("sha256").update(manifest).digest("hex");
  const names = readdirSync(directory);
  const load = (workers: number) =>
    Promise.all(
      Array.from({ length: workers }, (_, worker) =>
        loadCheckpoint(directory, { ...expected(small), sha256 }, wantedOf(small, worker, workers)),
      ),
    );
  await load(3);
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...names),
      fc.nat(),
      fc.nat(7),
      fc.integer({ min: 1, max: 4 }),
      async (name, byte, bit, workers) => {
        const path = join(directory, name);
        const good = readFileSync(path);
        const bad = Buffer.from(good);
        const at = byte % good.length;
        bad[at] = (bad[at] as number) ^ (1 << bit);
        writeFileSync(path, bad);
        await expect(load(workers)).rejects.toMatchObject({ code: "checkpoint-corrupt" });
        writeFileSync(path, good);
      },
    ),
    { numRuns: 60 },
  );
  await load(2);
});

test("a file that is longer or shorter than its manifest says is refused, also where only its head is read", async () => {
  const directory = folder();
  await save(directory, 2, small);
  const wanted = wantedOf(small, 1, 2);
  const path = join(directory, "shard-0-of-2.safetensors");
  const good = readFileSync(path);
  for (const bad of [good.subarray(0, -1), Buffer.concat([good, Buffer.alloc(1)])]) {
    writeFileSync(path, bad);
    await expect(loadCheckpoint(directory, expected(small), wanted)).rejects.toThrow(
      /expected \d+ bytes, received \d+/,
    );
  }
});

test("a worker reads the files that hold its shards, and of the others the head", async () => {
  const directory = folder();
  const manifest = await save(directory, 2, small);
  const path = join(directory, "shard-0-of-2.safetensors");
  const bytes = readFileSync(path);
  bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
  writeFileSync(path, bytes);
  const load = (worker: number) =>
    loadCheckpoint(directory, expected(small), wantedOf(small, worker, 2));
  expect((await load(1)).extras.get("centers/dino")).toEqual(Float32Array.of(1, 2, 3));
  await expect(load(0)).rejects.toThrow(/expected ghash/);
  const rewrite = (files: readonly ManifestFile[]): void =>
    writeFileSync(join(directory, "manifest.json"), JSON.stringify({ ...manifest, files }));
  // Manifests of older versions have no GHASH.
  rewrite(manifest.files.map(({ ghash: _, ...file }) => file));
  await load(1);
  await expect(load(0)).rejects.toThrow(/expected sha256/);
  // Without a hash of its head, a file must be read to its end.
  rewrite(manifest.files.map(({ head: _, ...file }) => file));
  await expect(load(1)).rejects.toThrow(/expected ghash/);
});

test("a manifest that lies about who wrote what is refused", async () => {
  const directory = folder();
  const manifest = await save(directory, 3, small);
  const [a, b, c] = manifest.files as [ManifestFile, ManifestFile, ManifestFile];
  const load = (changes: Partial<Manifest>, worker = 0) => {
    writeFileSync(join(directory, "manifest.json"), JSON.stringify({ ...manifest, ...changes }));
    return loadCheckpoint(directory, expected(small), wantedOf(small, worker, 2));
  };
  await expect(load({ files: [a, b] })).rejects.toThrow(/one file of each of 3 workers/);
  await expect(load({ files: [a, b, b] })).rejects.toThrow(/one file of each of 3 workers/);
  const swapped = { ...c, name: b.name, bytes: b.bytes, sha256: b.sha256 };
  await expect(load({ files: [a, b, swapped] }, 1)).rejects.toMatchObject({
    code: "checkpoint-corrupt",
  });
  await load({});
});

test("a manifest is believed by its own hash only, also where nothing else depends on it", async () => {
  const directory = folder();
  const manifest = await save(directory, 2, small);
  const path = join(directory, "manifest.json");
  const good = readFileSync(path, "utf8");
  const sha256 = createHash("sha256").update(good).digest("hex");
  const load = () =>
    loadCheckpoint(directory, { ...expected(small), sha256 }, wantedOf(small, 0, 1));
  for (const other of [
    { ...manifest, generation: 3 },
    { ...manifest, cursor: 1 },
    { ...manifest, scaler: { scale: 2, goodSteps: 0 } },
  ]) {
    writeFileSync(path, JSON.stringify(other));
    await expect(load()).rejects.toThrow(/manifest.json: expected SHA-256/);
  }
  writeFileSync(path, `${good}\n`);
  await expect(load()).rejects.toThrow(/manifest.json: expected SHA-256/);
  writeFileSync(path, good);
  await load();
});

test("shards in another worker's file than the manifest says are not taken for read", async () => {
  const directory = folder();
  const manifest = await save(directory, 2, small);
  const files = [];
  for (const worker of [0, 1]) {
    const entries = entriesOf(small, 1 - worker, 2);
    const shard = { directory, step: 7, generation: 2, worker, workers: 2, entries };
    files.push({ ...(await writeShardFile(shard)), worker });
  }
  writeFileSync(join(directory, "manifest.json"), JSON.stringify({ ...manifest, files }));
  for (const worker of [0, 1]) {
    const wanted = wantedOf(small, worker, 2);
    await expect(loadCheckpoint(directory, expected(small), wanted)).rejects.toMatchObject({
      code: "checkpoint-corrupt",
    });
  }
});

test("a save copies before it writes: what changes from then on is not in the file, and another save waits", async () => {
  const directory = folder();
  const told: string[] = [];
  const copied = new Map<number, () => void>();
  const calls = checkpointCalls((name, id) => {
    told.push(`${name} ${id}`);
    copied.get(id)?.();
  });
  const of = layoutOfSizes([3_000_000]);
  const entries = entriesOf(of, 0, 1);
  const good = folder();
  const shard = { step: 7, generation: 2, worker: 0, workers: 1, entries };
  const { sha256 } = await writeShardFile({ ...shard, directory: good });
  const first = new Promise<void>((resolve) => copied.set(1, resolve));
  const saves = [1, 2].map((id) =>
    calls.save({ id, shard: { ...shard, directory: join(directory, String(id)) } }).then((file) => {
      told.push(`written ${id}`);
      return file;
    }),
  );
  await first;
  for (const { data } of entries) data.fill(-1);
  const files = await Promise.all(saves);
  expect(files[0]?.sha256).toBe(sha256);
  expect(files[1]?.sha256).not.toBe(sha256);
  expect(told).toEqual(["copied 1", "written 1", "copied 2", "written 2"]);
});

test("the memory of a save is that of its file in whole pieces, and is used again", async () => {
  const memory = new PieceMemory();
  const of = layoutOfSizes([1_500_000]);
  await save(folder(), 1, of, 7, { memory });
  const { bytes } = memory;
  expect(bytes).toBe(Math.ceil((4 * 4 * 1_500_000) / pieceBytes) * pieceBytes);
  const again = folder();
  await save(again, 1, layoutOfSizes([1_400_000]), 7, { memory });
  expect(memory.bytes).toBe(bytes);
  const wanted = wantedOf(layoutOfSizes([1_400_000]), 0, 1);
  await loadCheckpoint(again, expected(layoutOfSizes([1_400_000])), wanted);
  expectValues(layoutOfSizes([1_400_000]), wanted);
});

test("loads that are asked for at once take turns with the thread's memory", async () => {
  const directory = folder();
  const of = layoutOfSizes([3_000_000]);
  await save(directory, 2, of);
  const calls = checkpointCalls(() => undefined);
  const all = [0, 1, 2].map((worker) => wantedOf(of, worker, 3));
  const loads = all.map((wanted, id) =>
    calls.load({ id, directory, expected: expected(of), wanted }),
  );
  await Promise.all(loads);
  for (const wanted of all) expectValues(of, wanted);
});
