/** What a replica is good for. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { loadCheckpoint } from "./load.js";
import { repairCheckpoint } from "./repair.js";
import { entriesOf, expected, layoutOfSizes, save, valueAt, wantedOf } from "./testing.js";
import { writeShardFile } from "./writer.js";

const root = mkdtempSync(join(tmpdir(), "paddock-repair-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const of = layoutOfSizes([1000, 77]);
const workers = 3;
let folders = 0;

/** A checkpoint with a replica of every file, and its files by name. */
async function replicated() {
  const directory = join(root, String(folders++));
  await save(directory, workers, of);
  for (let worker = 0; worker < workers; worker++) {
    const entries = entriesOf(of, worker, workers);
    const shard = { directory, step: 7, generation: 2, worker, workers, entries };
    await writeShardFile({ ...shard, isReplica: true });
  }
  const path = (name: string): string => join(directory, `${name}-of-3.safetensors`);
  const flip = (name: string): void => {
    const bytes = readFileSync(path(name));
    const last = bytes.length - 1;
    writeFileSync(path(name), bytes.with(last, (bytes[last] as number) ^ 1));
  };
  const load = () => loadCheckpoint(directory, expected(of), wantedOf(of, 0, 1));
  return { directory, path, flip, load };
}

test("a replica is the same bytes, and is read where the file is damaged, which is said", async () => {
  const { directory, path, flip } = await replicated();
  expect(readFileSync(path("replica-1"))).toEqual(readFileSync(path("shard-1")));
  flip("shard-1");
  const wanted = wantedOf(of, 0, 1);
  const { damages } = await loadCheckpoint(directory, expected(of), wanted);
  expect(damages).toEqual([expect.stringMatching(/shard-1-of-3.*expected ghash/)]);
  for (const { kind, unit, target } of wanted) {
    const u = of.units.findIndex(({ name }) => name === unit);
    expect(
      target.findIndex((value, i) => value !== valueAt(kind, u, i)),
      kind,
    ).toBe(-1);
  }
});

test("a damaged replica helps nobody, and the damage of the file is the one that is told", async () => {
  const { flip, load } = await replicated();
  flip("replica-0");
  expect((await load()).damages).toEqual([]);
  flip("shard-0");
  await expect(load()).rejects.toThrow(/\/shard-0-of-3.safetensors: expected ghash/);
});

test("repair writes damaged and missing files anew, leaves what has no whole replica, and touches nothing else", async () => {
  const { directory, path, flip, load } = await replicated();
  const good = readFileSync(path("shard-0"));
  expect(await repairCheckpoint(directory, null)).toEqual([]);
  flip("shard-0");
  rmSync(path("shard-2"));
  expect(await repairCheckpoint(directory, null)).toMatchObject(
    [
      { file: "shard-0-of-3.safetensors", damage: /expected sha256/, remains: null },
      { file: "shard-2-of-3.safetensors", damage: /received no file/, remains: null },
    ].map((repair) => ({ ...repair, damage: expect.stringMatching(repair.damage) })),
  );
  expect(readFileSync(path("shard-0"))).toEqual(good);
  expect((await load()).damages).toEqual([]);

  for (const name of ["shard-1", "replica-1"]) flip(name);
  const damaged = readFileSync(path("shard-1"));
  expect(await repairCheckpoint(directory, null)).toMatchObject([
    { file: "shard-1-of-3.safetensors", remains: expect.stringMatching(/replica-1.*sha256/) },
  ]);
  expect(readFileSync(path("shard-1"))).toEqual(damaged);
});
