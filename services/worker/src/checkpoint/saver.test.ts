import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Saver, saverOn } from "./saver.js";
import { serveSaves } from "./serve-saves.js";
import { type ShardFile, writeShardFile } from "./writer.js";

let folder = "";
let saver: Saver;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "paddock-saver-"));
  const { port1, port2 } = new MessageChannel();
  serveSaves(port2);
  saver = saverOn(port1, async () => port1.close());
});
afterAll(async () => {
  await saver.close();
  await rm(folder, { recursive: true, force: true });
});

const values = 3_000_000;

function shardOf(directory: string): ShardFile & { readonly data: Float32Array } {
  const data = new Float32Array(new SharedArrayBuffer(4 * values)).map((_, i) => i / 3);
  const shared = new Float32Array(new SharedArrayBuffer(4 * values));
  shared.set(data);
  const entries = [{ name: "student/x", data: shared, range: { start: 0, end: values } }];
  return { directory, step: 1, generation: 1, worker: 0, workers: 1, entries, data: shared };
}

test("the file is what the state was when it was copied, whatever happens to it then", async () => {
  const expected = await writeShardFile(shardOf(join(folder, "expected")));
  const shard = shardOf(join(folder, "saved"));
  const { copied, written } = saver.save(shard);
  await copied;
  shard.data.fill(7);
  const file = await written;
  expect(file).toEqual(expected);
  const bytes = await readFile(join(folder, "saved", file.name));
  expect(createHash("sha256").update(bytes).digest("hex")).toBe(file.sha256);
});

test("two saves at once are two files, each of its own state", async () => {
  const [a, b] = [shardOf(join(folder, "a")), shardOf(join(folder, "b"))];
  b.data.fill(3);
  const saves = [a, b].map((shard) => saver.save(shard).written);
  const [first, second] = await Promise.all(saves);
  expect(first?.sha256).not.toBe(second?.sha256);
});

test("a disk that refuses is an error of the save, and the thread goes on", async () => {
  await writeFile(join(folder, "file"), "");
  const { written } = saver.save(shardOf(join(folder, "file", "below")));
  await expect(written).rejects.toMatchObject({ code: "disk-unavailable" });
  await expect(saver.save(shardOf(join(folder, "again"))).written).resolves.toMatchObject({
    name: "shard-0-of-1.safetensors",
  });
});
