import { createHash } from "node:crypto";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Layout,
  layoutOf,
  type Manifest,
  type ManifestFile,
  parseRunSpec,
  shardOf,
} from "@paddock/contract";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { listCheckpoints } from "./list.js";
import { openCheckpoint } from "./reader.js";
import { entriesOf, expected, kinds, layoutOfSizes, save as saveTo, valueAt } from "./testing.js";
import { type ShardEntry, writeShardFile } from "./writer.js";

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
const save = (directory: string, workers: number, of = layout, step = 7): Promise<Manifest> =>
  saveTo(directory, workers, of, step);

let folders = 0;
const folder = (): string => join(root, String(folders++));

async function expectReadable(directory: string, of: Layout, workers: number): Promise<void> {
  const checkpoint = await openCheckpoint(directory, expected(of));
  try {
    for (let worker = 0; worker < workers; worker++) {
      for (const [u, unit] of of.units.entries()) {
        const { start, end } = shardOf(unit.elements, worker, workers);
        for (const kind of kinds) {
          const values = await checkpoint.readRange(kind, unit.name, start, end);
          const expected = Float32Array.from({ length: end - start }, (_, i) =>
            valueAt(kind, u, start + i),
          );
          expect(Buffer.compare(Buffer.from(values.buffer), Buffer.from(expected.buffer))).toBe(0);
        }
      }
    }
    expect(await checkpoint.extra("centers/dino")).toEqual(Float32Array.of(1, 2, 3));
    expect(await checkpoint.extra("centers/ibot")).toBeUndefined();
    expect(await checkpoint.extra(`student/${of.units[0]?.name}`)).toBeUndefined();
  } finally {
    await checkpoint.close();
  }
}

test("what W workers wrote, any W' workers read, also where some own nothing of a unit", async () => {
  const workers = fc.integer({ min: 1, max: 7 });
  const sizes = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(sizes, workers, workers, async (units, from, to) => {
      const directory = folder();
      const of = layoutOfSizes(units);
      await save(directory, from, of);
      await expectReadable(directory, of, to);
    }),
    { numRuns: 15 },
  );
  const directory = folder();
  await save(directory, 3);
  await expectReadable(directory, layout, 2);
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
      await expect(openCheckpoint(directory, expected(layout))).rejects.toMatchObject({
        code: "checkpoint-corrupt",
      });
    }),
    { numRuns: 40 },
  );
  for (const length of [0, 7, 8, 100, good.length - 1]) {
    writeFileSync(path, good.subarray(0, length));
    await expect(openCheckpoint(directory, expected(layout))).rejects.toThrow(
      /expected \d+ bytes, received/,
    );
  }
  writeFileSync(path, good);
  await (await openCheckpoint(directory, expected(layout))).close();
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
    await expect(openCheckpoint(directory, expected(layout))).rejects.toMatchObject({
      code: "checkpoint-corrupt",
    });
  }
});

test("a link in the place of a file is refused, and so is a manifest without measure", async () => {
  const directory = folder();
  await save(directory, 2);
  const path = join(directory, "shard-1-of-2.safetensors");
  const elsewhere = `${directory}.elsewhere`;
  renameSync(path, elsewhere);
  symlinkSync(elsewhere, path);
  await expect(openCheckpoint(directory, expected(layout))).rejects.toThrow(/a symbolic link/);
  renameSync(elsewhere, path);
  const manifest = join(directory, "manifest.json");
  await (await openCheckpoint(directory, expected(layout))).close();
  truncateSync(manifest, 17 * 2 ** 20);
  await expect(openCheckpoint(directory, expected(layout))).rejects.toThrow(
    /manifest\.json: expected at most 16777216 bytes/,
  );
});

test("a manifest that does not fit its files, the layout or this folder is refused", async () => {
  const directory = folder();
  const manifest = await save(directory, 2);
  const [first, second] = manifest.files as [ManifestFile, ManifestFile];
  const opened = (changes: Partial<Manifest>, of: Layout = layout) => {
    writeFileSync(join(directory, "manifest.json"), JSON.stringify({ ...manifest, ...changes }));
    return openCheckpoint(directory, expected(of));
  };
  await expect(opened({ files: [first] })).rejects.toThrow(/expected \d+ elements, received \d+/);
  await expect(opened({ files: [first, second, first] })).rejects.toThrow(/expected element/);
  for (const name of ["../x", "/etc/passwd", "..", "a/b", ".hidden", ""]) {
    await expect(opened({ files: [{ ...first, name }] })).rejects.toThrow(/plain file names/);
  }
  await expect(opened({ step: 8 })).rejects.toThrow(/expected step 8, worker [01] of 2, received/);
  await expect(
    opened({
      files: [
        { ...first, worker: 1 },
        { ...second, worker: 0 },
      ],
    }),
  ).rejects.toThrow(/expected step 7, worker [01] of 2/);
  const other: Layout = { ...layout, units: layout.units.slice(1) };
  await expect(opened({}, other)).rejects.toThrow(/expected unit 0 to be block.0:\d+ .*embed/);
  const more: Layout = { ...layout, units: [...layout.units, ...layoutOfSizes([5]).units] };
  await expect(opened({}, more)).rejects.toThrow(/to be unit.0:5 .*received none/);
  await (await opened({})).close();
});

test("a file that is missing, no manifest and one that is none are told apart", async () => {
  const directory = folder();
  await save(directory, 2);
  rmSync(join(directory, "shard-1-of-2.safetensors"));
  await expect(openCheckpoint(directory, expected(layout))).rejects.toThrow(
    /shard-1-of-2.*received no file/,
  );
  for (const text of ["{", "null", "[]", '{"format":"paddock-checkpoint","version":1}', "{}"]) {
    writeFileSync(join(directory, "manifest.json"), text);
    await expect(openCheckpoint(directory, expected(layout))).rejects.toMatchObject({
      code: "checkpoint-corrupt",
    });
  }
  rmSync(join(directory, "manifest.json"));
  await expect(openCheckpoint(directory, expected(layout))).rejects.toMatchObject({
    code: "not-found",
  });
});

test("the message of a damaged checkpoint names the newest complete one beside it", async () => {
  const checkpoints = folder();
  for (const step of [4, 12, 20]) await save(join(checkpoints, String(step)), 1, layout, step);
  const path = join(checkpoints, "20", "shard-0-of-1.safetensors");
  const bad = readFileSync(path);
  bad.writeUInt8(bad.readUInt8(bad.length - 1) ^ 1, bad.length - 1);
  writeFileSync(path, bad);
  await expect(openCheckpoint(join(checkpoints, "20"), expected(layout))).rejects.toThrow(
    /20\/shard-0-of-1\.safetensors: expected sha256 [0-9a-f]{64}, received [0-9a-f]{64}.*complete checkpoint is .*\/12$/,
  );
});

test("only complete checkpoints are listed, newest first", async () => {
  const checkpoints = folder();
  for (const step of [4, 100, 20, 36]) {
    await save(join(checkpoints, String(step)), 2, layout, step);
  }
  rmSync(join(checkpoints, "20", "manifest.json"));
  rmSync(join(checkpoints, "36", "shard-1-of-2.safetensors"));
  writeFileSync(join(checkpoints, "notes"), "");
  expect((await listCheckpoints(checkpoints)).map(({ step }) => step)).toEqual([100, 4]);
  expect(await listCheckpoints(join(checkpoints, "absent"))).toEqual([]);
});

test("a writer that dies half way leaves the file that was there, and a newer generation cleans up after it", async () => {
  const directory = folder();
  await save(directory, 1);
  const path = join(directory, "shard-0-of-1.safetensors");
  const before = readFileSync(path);
  // What a killed process leaves: half a file under a temporary name.
  const leftovers = [".shard-0-of-1.safetensors.g1.77.tmp", ".shard-2-of-3.safetensors.g2.78.tmp"];
  for (const name of leftovers) {
    writeFileSync(join(directory, name), before.subarray(0, before.length / 2));
  }
  const newer = join(directory, ".shard-0-of-1.safetensors.g9.79.tmp");
  writeFileSync(newer, "a writer that is at work");
  const dying: ShardEntry[] = [
    ...entriesOf(layout, 0, 1).slice(0, 5),
    { name: "x", data: brokenData() },
  ];
  const shard = { directory, step: 7, worker: 0, workers: 1 };
  await expect(writeShardFile({ ...shard, generation: 3, entries: dying })).rejects.toThrow(
    /broken on purpose/,
  );
  expect(readFileSync(path).equals(before)).toBe(true);
  await expectReadable(directory, layout, 2);
  await writeShardFile({ ...shard, generation: 3, entries: entriesOf(layout, 0, 1) });
  expect(readdirSync(directory).filter((name) => name.startsWith("."))).toEqual([
    ".shard-0-of-1.safetensors.g9.79.tmp",
  ]);
});

/** Data that throws when it comes to be written. */
function brokenData(): Float32Array {
  const data = Float32Array.of(1);
  Object.defineProperty(data, "byteOffset", {
    get() {
      throw new Error("broken on purpose");
    },
  });
  return data;
}

test("a late writer of an older generation replaces a file by the same bytes", async () => {
  const directory = folder();
  await save(directory, 1);
  const path = join(directory, "shard-0-of-1.safetensors");
  const { ino } = statSync(path);
  const entries = entriesOf(layout, 0, 1);
  const late = { directory, step: 7, generation: 1, worker: 0, workers: 1, entries };
  await writeShardFile(late);
  expect(statSync(path).ino).not.toBe(ino);
  await expectReadable(directory, layout, 1);
});

test("two entries of one name, or a range of another size, are a bug and not a file", async () => {
  const shard = { directory: folder(), step: 7, generation: 1, worker: 0, workers: 1 };
  const entry = { name: "x", data: Float32Array.of(1, 2) };
  for (const entries of [[entry, entry], [{ ...entry, range: { start: 0, end: 3 } }]]) {
    await expect(writeShardFile({ ...shard, entries })).rejects.toMatchObject({ code: "internal" });
  }
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

test("a manifest that is not the one in the ledger is refused, though it be well formed", async () => {
  const directory = folder();
  await save(directory, 2);
  const path = join(directory, "manifest.json");
  const sha256 = createHash("sha256").update(readFileSync(path)).digest("hex");
  await (await openCheckpoint(directory, { ...expected(layout), sha256 })).close();
  writeFileSync(path, readFileSync(path, "utf8").replace('"cursor":0', '"cursor":8'));
  await (await openCheckpoint(directory, expected(layout))).close();
  await expect(openCheckpoint(directory, { ...expected(layout), sha256 })).rejects.toMatchObject({
    code: "checkpoint-corrupt",
  });
});
