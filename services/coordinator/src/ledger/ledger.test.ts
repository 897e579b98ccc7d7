import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmdirSync } from "node:fs";
import { appendFile, mkdir, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import type { StepRecord } from "@paddock/contract";
import fc from "fast-check";
import { afterAll, afterEach, expect, test } from "vitest";
import type { RunRecord } from "../run/durable.js";
import { openStepsFile } from "../run-dir/steps-file.js";
import { exampleSpec } from "../testing/example.js";
import { Cleanup } from "../testing/temporary.js";
import { crc32c } from "./crc32c.js";
import { openFileLedger } from "./file-ledger.js";
import { openMemoryLedger } from "./ledger.js";
import { fromLine, toLine } from "./line.js";

const after = new Cleanup();
afterEach(() => after.run());

const records: RunRecord[] = [
  { kind: "run", runId: "räum", spec: exampleSpec(), unixMs: 1.5 },
  { kind: "generation", generation: 1, workers: 2, step: 0, reason: "start", unixMs: 2 },
  {
    kind: "commit",
    step: 0,
    generation: 1,
    skipped: false,
    scaler: { scale: 1, goodSteps: 1 },
    unixMs: 3,
  },
];

/** A folder whose ledger holds `records`. */
async function written(): Promise<{ runDir: string; path: string }> {
  const runDir = await after.folder();
  const ledger = await openFileLedger(runDir);
  for (const record of records) await ledger.append(record);
  await ledger.close();
  return { runDir, path: join(runDir, "ledger.jsonl") };
}

test("crc32c is that of RFC 3720", () => {
  expect(crc32c("123456789")).toBe(0xe3069283);
  expect(crc32c("\0".repeat(32))).toBe(0x8a9136aa);
  expect(crc32c("")).toBe(0);
});

test("what was appended is there when the ledger is opened again, and in memory alike", async () => {
  const { runDir } = await written();
  const ledger = await openFileLedger(runDir);
  after.add(() => ledger.close());
  expect(ledger.records).toEqual(JSON.parse(JSON.stringify(records)));
  expect(ledger.tornBytes).toBe(0);
  const kept: RunRecord[] = [];
  const memory = openMemoryLedger(kept);
  for (const record of records) await memory.append(record);
  expect(openMemoryLedger(kept).records).toEqual(records);
});

const small = mountedSmall();
afterAll(() => {
  if (!small) return;
  spawnSync("umount", [small]);
  rmdirSync(small);
});

/** A disk of 64 KiB; undefined where nobody may mount one. */
function mountedSmall(): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), "paddock-small-"));
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]);
  if (status === 0) return folder;
  rmdirSync(folder);
  return undefined;
}

test.skipIf(!small)("nothing stays of a record for which the disk had no room", async () => {
  const runDir = small as string;
  const ledger = await openFileLedger(runDir);
  await writeFile(join(runDir, "filler"), Buffer.alloc(30_000));
  const [, generation] = records as [RunRecord, RunRecord & { kind: "generation" }];
  // Of several blocks, of which the disk has the first.
  const long = { ...generation, reason: "x".repeat(20_000) };
  await ledger.append(long);
  for (let i = 0; i < 3; i++) {
    await expect(ledger.append(long)).rejects.toMatchObject({ code: "disk-unavailable" });
  }
  await truncate(join(runDir, "filler"), 0);
  await ledger.append(generation);
  await ledger.close();
  const again = await openFileLedger(runDir);
  expect(again.records).toEqual([long, generation]);
  expect(again.tornBytes).toBe(0);
  await again.close();
});

test.skipIf(!small)("nothing stays of a step for which the disk had no room", async () => {
  const path = join(small as string, "steps.jsonl");
  const filler = join(small as string, "filler");
  const steps = await openStepsFile(path);
  await truncate(join(small as string, "ledger.jsonl"), 0);
  await writeFile(filler, Buffer.alloc(40_000));
  const long = { step: 0, text: "x".repeat(20_000) } as unknown as StepRecord;
  await steps.write(long);
  await expect(steps.write(long)).rejects.toMatchObject({ code: "disk-unavailable" });
  expect((await readFile(path)).length).toBe(JSON.stringify(long).length + 1);
  await steps.close();
});

test("a line is readable JSON with its checksum last", () => {
  const line = toLine(records[1] as RunRecord);
  expect(JSON.parse(line)).toMatchObject({ kind: "generation", crc: expect.any(String) });
  expect(line.endsWith('"}\n')).toBe(true);
});

test("any changed character of a line is noticed", () => {
  const line = toLine(records[2] as RunRecord).slice(0, -1);
  fc.assert(
    fc.property(fc.nat(line.length - 1), fc.integer({ min: 32, max: 126 }), (at, code) => {
      const changed = line.slice(0, at) + String.fromCharCode(code) + line.slice(at + 1);
      if (changed !== line) expect(fromLine(changed)).toBeUndefined();
    }),
    { numRuns: 500 },
  );
});

test("a line torn off at any byte is cut away, and the next append follows the last good one", async () => {
  const { runDir, path } = await written();
  const whole = await readFile(path);
  const last = Buffer.byteLength(toLine(records[2] as RunRecord));
  for (const torn of [1, Math.floor(last / 2), last - 1]) {
    await writeFile(path, whole);
    await truncate(path, whole.length - last + torn);
    const ledger = await openFileLedger(runDir);
    expect(ledger.tornBytes).toBe(torn);
    expect(ledger.records.length).toBe(2);
    await ledger.append(records[2] as RunRecord);
    await ledger.close();
    expect(await readFile(path)).toEqual(whole);
  }
});

test("a corrupt line is an error with its number and the remedy, and nothing is changed", async () => {
  const { runDir, path } = await written();
  const text = (await readFile(path, "utf8")).replace('"generation":1', '"generation":9');
  await writeFile(path, text);
  await expect(openFileLedger(runDir)).rejects.toMatchObject({
    code: "ledger-corrupt",
    message: expect.stringMatching(/line 2: expected .* restore the file from a backup/),
  });
  expect(await readFile(path, "utf8")).toBe(text);
  // A complete last line was acknowledged: it may not be dropped silently either.
  await writeFile(path, (await readFile(path, "utf8")).replace('"generation":9', '"generation":1'));
  await appendFile(path, '{"kind":"commit"}\n');
  await expect(openFileLedger(runDir)).rejects.toMatchObject({ code: "ledger-corrupt" });
  expect(await readdir(runDir)).toEqual(["ledger.jsonl"]); // the lock is given back
});

test("a line without measure is corrupt, whatever its checksum says", async () => {
  const { runDir, path } = await written();
  const long = { ...(records[0] as object), note: "x".repeat(9 * 2 ** 20) };
  await appendFile(path, toLine(long as unknown as RunRecord));
  await expect(openFileLedger(runDir)).rejects.toMatchObject({ code: "ledger-corrupt" });
});

test("a second writer is refused while the first lives, also in the same process", async () => {
  const { runDir } = await written();
  const ledger = await openFileLedger(runDir);
  await expect(openFileLedger(runDir)).rejects.toMatchObject({
    code: "already-exists",
    message: expect.stringContaining(`process ${process.pid} on ${hostname()}`),
  });
  await ledger.close();
  await (await openFileLedger(runDir)).close();
});

async function sleeper(): Promise<ChildProcess> {
  const child = spawn("sleep", ["60"]);
  await once(child, "spawn");
  after.add(() => child.kill("SIGKILL"));
  return child;
}

test("the lock of a living process is respected, that of a killed one is taken over", async () => {
  const runDir = await after.folder();
  const child = await sleeper();
  const holder = { pid: child.pid, host: hostname(), startTicks: null, nonce: "n" };
  await writeFile(join(runDir, "ledger.lock"), JSON.stringify(holder));
  await expect(openFileLedger(runDir)).rejects.toMatchObject({ code: "already-exists" });
  child.kill("SIGKILL");
  await once(child, "exit");
  await (await openFileLedger(runDir)).close();
  expect(await readdir(runDir)).toEqual(["ledger.jsonl"]);
});

test("a lock outlives neither a reused pid nor an earlier life of our own pid", async () => {
  for (const pid of [process.pid, (await sleeper()).pid]) {
    const runDir = await after.folder();
    const holder = { pid, host: hostname(), startTicks: "1", nonce: "of an earlier life" };
    await writeFile(join(runDir, "ledger.lock"), JSON.stringify(holder));
    await (await openFileLedger(runDir)).close();
  }
});

test("the lock of another host is respected: nobody here can tell whether it lives", async () => {
  const runDir = await after.folder();
  const holder = { pid: 1, host: "elsewhere", startTicks: null, nonce: "n" };
  await writeFile(join(runDir, "ledger.lock"), JSON.stringify(holder));
  await expect(openFileLedger(runDir)).rejects.toMatchObject({
    message: expect.stringContaining("delete that file"),
  });
});

test("a run directory that cannot be written is an environment error with the system's reason", async () => {
  const runDir = await after.folder();
  await mkdir(join(runDir, "ledger.jsonl"));
  await expect(openFileLedger(runDir)).rejects.toMatchObject({
    code: "disk-unavailable",
    message: expect.stringContaining("EISDIR"),
  });
});
