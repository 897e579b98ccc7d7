import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { DataSpec } from "@paddock/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { idx, makeFolder } from "../testing/images.js";
import { greySpec } from "../testing/spec.js";
import { findFashionMnist } from "./demo-images.js";
import { openDataset } from "./open-dataset.js";

let folder: string;
let remove: () => void;
beforeEach(() => {
  ({ folder, remove } = makeFolder());
});
afterEach(() => remove());

function data(changes: Partial<DataSpec> = {}): DataSpec {
  return { ...greySpec().data, path: folder, ...changes };
}

function write(name: string, bytes: Uint8Array): void {
  writeFileSync(join(folder, name), bytes);
}

const images = idx(
  [3, 2, 4],
  Uint8Array.from({ length: 24 }, (_, i) => i),
);
const labels = idx([3], Uint8Array.from([2, 0, 1]));

test.each(["plain", "gzipped"])("%s images and labels are read", async (packing) => {
  const [suffix, pack] = packing === "plain" ? ["", (b: Buffer) => b] : [".gz", gzipSync];
  write(`train-images-idx3-ubyte${suffix}`, pack(images));
  write(`train-labels-idx1-ubyte${suffix}`, pack(labels));
  const dataset = await openDataset(data(), "train");
  expect(dataset.count).toBe(3);
  expect(dataset.classes).toEqual(["0", "1", "2"]);
  expect([0, 1, 2].map((id) => dataset.label(id))).toEqual([2, 0, 1]);
  expect(dataset.describe(2)).toBe(join(folder, `train-images-idx3-ubyte${suffix}#2`));
  const { width, height, channels, pixels } = await dataset.load(1);
  expect({ width, height, channels }).toEqual({ width: 4, height: 2, channels: 1 });
  expect([...pixels]).toEqual([8, 9, 10, 11, 12, 13, 14, 15]);
  expect(pixels.buffer).toBeInstanceOf(SharedArrayBuffer);
});

test("the validation split is the t10k files; labels may be absent", async () => {
  write("t10k-images.idx3-ubyte", images);
  const dataset = await openDataset(data(), "validation");
  expect([dataset.count, dataset.classes, dataset.label(0)]).toEqual([3, null, null]);
});

async function failure(changes: Partial<DataSpec> = {}): Promise<string> {
  const error: unknown = await openDataset(data(changes), "train").catch((thrown) => thrown);
  expect(error).toMatchObject({ code: "data-unavailable" });
  return (error as Error).message;
}

test("a missing folder, and one without images, are named with the remedy", async () => {
  const path = join(folder, "nowhere");
  expect(await failure({ path })).toMatch(
    /nowhere: expected .*train-images-idx3-ubyte.* nothing there; check data.path/,
  );
  expect(await failure()).toMatch(/received a folder without it/);
  mkdirSync(join(folder, "train-images-idx3-ubyte"));
  expect(await failure()).toMatch(/received a folder without it/);
});

test("truncation is reported with path, expected and received bytes", async () => {
  write("train-images-idx3-ubyte", images.subarray(0, 30));
  expect(await failure()).toMatch(/train-images-idx3-ubyte: expected 40 bytes, received 30 bytes/);
  write("train-images-idx3-ubyte", images.subarray(0, 7));
  expect(await failure()).toMatch(/expected 16 bytes of header, received 7 bytes/);
  write("train-images-idx3-ubyte", Buffer.alloc(0));
  expect(await failure()).toMatch(/expected 16 bytes of header, received 0 bytes/);
});

test("a truncated or damaged gzip file is reported, whether its header can be read or not", async () => {
  const big = gzipSync(
    idx(
      [100, 28, 28],
      Uint8Array.from({ length: 78400 }, (_, i) => (i * i) % 251),
    ),
  );
  write("train-images-idx3-ubyte.gz", big.subarray(0, big.length - 100));
  expect(await failure()).toMatch(/idx3-ubyte.gz: expected 78416 bytes, received \d+ bytes/);
  write("train-images-idx3-ubyte.gz", big.subarray(0, 12));
  expect(await failure()).toMatch(/expected 16 bytes of header/);
  big[big.length >> 1] = (big[big.length >> 1] as number) ^ 0xff;
  write("train-images-idx3-ubyte.gz", big);
  expect(await failure()).toMatch(/idx3-ubyte.gz: expected 78416 bytes/);
});

test("more bytes than announced are refused before they are read", async () => {
  write("train-images-idx3-ubyte.gz", gzipSync(Buffer.concat([images, Buffer.alloc(5_000_000)])));
  expect(await failure()).toMatch(/expected 40 bytes \(its header says 3 x 2 x 4\), received more/);
});

test("a wrong magic, no images, and absurd dimensions are refused", async () => {
  write("train-images-idx3-ubyte", labels);
  expect(await failure()).toMatch(/expected 16 bytes of header, received 11/);
  write("train-images-idx3-ubyte", Buffer.concat([labels, Buffer.alloc(20)]));
  expect(await failure()).toMatch(/expected the IDX magic 0x00000803, received 0x00000801/);
  write("train-images-idx3-ubyte", idx([0, 28, 28], new Uint8Array()));
  expect(await failure()).toMatch(/at least one item .* received 0 x 28 x 28/);
  write("train-images-idx3-ubyte", idx([1, 100_000, 100_000], new Uint8Array(9)));
  expect(await failure()).toMatch(
    /sides of 1 to 16384 pixels \(data.maxSide\), received 1 x 100000 x 100000/,
  );
  write("train-images-idx3-ubyte", idx([2 ** 32 - 1, 28, 28], new Uint8Array(9)));
  expect(await failure()).toMatch(/expected 3367254359296 bytes|truncated/);
});

test("a labels file of another length is refused", async () => {
  write("train-images-idx3-ubyte", images);
  write("train-labels-idx1-ubyte", idx([2], Uint8Array.from([0, 1])));
  expect(await failure()).toMatch(/labels-idx1-ubyte: expected 3 labels, .* received 2/);
});

test.runIf(findFashionMnist() !== null)(
  "Fashion-MNIST, where it is installed, is whole",
  async () => {
    rmSync(folder, { recursive: true, force: true });
    const dataset = await openDataset(data({ path: findFashionMnist() as string }), "validation");
    expect([dataset.count, dataset.classes?.length]).toEqual([10_000, 10]);
    const counts = new Array<number>(10).fill(0);
    for (let id = 0; id < dataset.count; id++) {
      const label = dataset.label(id) as number;
      counts[label] = (counts[label] as number) + 1;
    }
    expect(counts).toEqual(new Array(10).fill(1000));
  },
);
