import { expect, test } from "vitest";
import { absolutePlace, checkpointRoot, childOf, parentOf, s3NameOf } from "./location.js";

test("places in S3 keep their two slashes, paths are paths", () => {
  expect(childOf("s3://bucket/a", "4")).toBe("s3://bucket/a/4");
  expect(parentOf("s3://bucket/a/4")).toBe("s3://bucket/a");
  expect(absolutePlace("s3://bucket/a", "/home")).toBe("s3://bucket/a");
  expect(s3NameOf("s3://bucket/a/4")).toEqual({ bucket: "bucket", key: "a/4" });
  expect(s3NameOf("s3://bucket")).toEqual({ bucket: "bucket", key: "" });
  expect(childOf("/runs/a", "4")).toBe("/runs/a/4");
  expect(parentOf("/runs/a/4")).toBe("/runs/a");
  expect(absolutePlace("a/4", "/runs")).toBe("/runs/a/4");
});

test("runs that share a storage have roots of their own; without one it is the run directory", () => {
  const run = { runDir: "/runs/a", runId: "vit-1" };
  expect(checkpointRoot({ ...run, storage: null })).toBe("/runs/a/checkpoints");
  expect(checkpointRoot({ ...run, storage: "s3://bucket/team" })).toBe("s3://bucket/team/vit-1");
});
