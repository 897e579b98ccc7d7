import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import type { DataSpec } from "@paddock/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { encoded, makeFolder } from "../testing/images.js";
import { officialSpec } from "../testing/spec.js";
import type { Dataset } from "./dataset.js";
import { datasetFrom, openDataset } from "./open-dataset.js";

let folder: string;
let remove: () => void;
beforeEach(() => {
  ({ folder, remove } = makeFolder());
});
afterEach(() => remove());

function data(changes: Partial<DataSpec> = {}): DataSpec {
  return { ...officialSpec().data, path: folder, ...changes };
}

/** Listing never opens a file: empty ones do. */
function touch(...names: string[]): void {
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), "");
  }
}

function listed(dataset: Dataset): string[] {
  return Array.from({ length: dataset.count }, (_, id) => relative(folder, dataset.describe(id)));
}

test("images are listed in sorted order, whatever else lies around", async () => {
  touch(
    "b.JPG",
    "a.png",
    "notes.txt",
    ".hidden.jpg",
    "c/x.webp",
    "c/d/e.tiff",
    ".cache/y.jpg",
    "ä.jpeg",
  );
  const dataset = await openDataset(data(), "train");
  expect(listed(dataset)).toEqual(["a.png", "b.JPG", "c/d/e.tiff", "c/x.webp", "ä.jpeg"]);
});

test("first-level subfolders are classes; images outside of them have no label", async () => {
  touch("dog/1.jpg", "cat/deep/2.jpg", "3.jpg", "dog/4.jpg");
  const dataset = await openDataset(data(), "train");
  expect(dataset.classes).toEqual(["cat", "dog"]);
  expect(listed(dataset).map((_, id) => dataset.label(id))).toEqual([null, 0, 1, 1]);
});

test("a flat folder has no classes", async () => {
  touch("1.jpg", "2.jpg");
  const dataset = await openDataset(data(), "train");
  expect([dataset.classes, dataset.label(0)]).toEqual([null, null]);
});

test("labels of the validation split count the classes of the training split", async () => {
  touch("train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/1.jpg", "val/aa/1.jpg");
  const paths = { path: join(folder, "train"), validationPath: join(folder, "val") };
  const dataset = await openDataset(data(paths), "validation");
  expect(dataset.classes).toEqual(["a", "b", "c", "aa"]);
  expect([dataset.label(0), dataset.label(1)]).toEqual([3, 2]);
});

test("symbolic links are followed once: loops and twins end", async () => {
  touch("a/1.jpg", "elsewhere/2.jpg");
  symlinkSync(folder, join(folder, "a", "up"));
  symlinkSync(join(folder, "a"), join(folder, "twin"));
  symlinkSync(join(folder, "elsewhere", "2.jpg"), join(folder, "a", "link.jpg"));
  symlinkSync(join(folder, "gone.jpg"), join(folder, "a", "dangling.jpg"));
  const dataset = await openDataset(data(), "train");
  // Depth first, the folder is met again through a/up, where everything that is not yet visited is found.
  expect(listed(dataset).sort()).toEqual(["a/1.jpg", "a/link.jpg", "elsewhere/2.jpg"]);
});

test("another thread sees the same dataset through its source", async () => {
  touch("größe/1.jpg", "日本/2.png", "z/3.jpg");
  const dataset = await openDataset(data(), "train");
  const twin = datasetFrom(structuredClone(dataset.source));
  expect(listed(twin)).toEqual(listed(dataset));
  expect(listed(twin)).toEqual(["größe/1.jpg", "z/3.jpg", "日本/2.png"]);
  expect([0, 1, 2].map(twin.label)).toEqual([0, 1, 2]);
  expect(twin.classes).toEqual(dataset.classes);
});

test("images come out grey or RGB as stored", async () => {
  writeFileSync(join(folder, "a.png"), await encoded("png", { width: 5, height: 4, channels: 3 }));
  writeFileSync(join(folder, "b.png"), await encoded("png", { width: 6, height: 3, channels: 1 }));
  const dataset = await openDataset(data(), "train");
  expect(await dataset.load(0)).toMatchObject({ width: 5, height: 4, channels: 3 });
  expect(await dataset.load(1)).toMatchObject({ width: 6, height: 3, channels: 1 });
});

test.each([
  [
    "a missing folder",
    { path: "/nonexistent/images" },
    "train",
    /\/nonexistent\/images: expected a readable folder of images, received ENOENT; check/,
  ],
  ["an empty folder", {}, "train", /expected image files .*, found none; check data.path/],
  [
    "no validation path",
    {},
    "validation",
    /data.validationPath: expected a folder .* received none; set it/,
  ],
  [
    "a missing validation folder",
    { validationPath: "/nonexistent/val" },
    "validation",
    /\/nonexistent\/val: .*ENOENT/,
  ],
] as const)("%s is an error with the remedy", async (_, changes, split, message) => {
  const opening = openDataset(data(changes), split);
  await expect(opening).rejects.toMatchObject({ code: "data-unavailable" });
  await expect(opening).rejects.toThrow(message);
});

test("a file in place of the folder is an error", async () => {
  touch("file.jpg");
  await expect(openDataset(data({ path: join(folder, "file.jpg") }), "train")).rejects.toThrow(
    /ENOTDIR/,
  );
});
