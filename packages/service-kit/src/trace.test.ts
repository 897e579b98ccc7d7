import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { digestsOf, openTrace, readTrace, type TraceEvent, type TraceHead } from "./trace.js";
import { digestOf, fromJson, toJson } from "./trace-values.js";

const folder = mkdtempSync(join(tmpdir(), "paddock-trace-"));
afterEach(() => {
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
  vi.restoreAllMocks();
});

const roundTrip = (value: unknown): unknown => fromJson(JSON.parse(JSON.stringify(toJson(value))));

test.each<[string, unknown]>([
  ["numbers that JSON does not know", [Number.NaN, Infinity, -Infinity, -0, 0.1, 5e-324]],
  ["bytes", new Uint8Array([0, 255, 7])],
  ["a view that begins anywhere", new Uint8Array(new ArrayBuffer(9), 3, 5).fill(9)],
  ["floats", new Float32Array([1.5, Number.NaN, -0])],
  ["doubles of an odd number of bytes before them", new Float64Array([Math.PI])],
  ["an empty array of each", [new Int32Array(0), []]],
  ["undefined", { a: undefined, b: [undefined, null] }],
  ["large integers", 2n ** 70n],
  ["what looks like a tag", { $: ["number", "NaN"], deep: { $: 1, other: -0 } }],
  ["a key of its own", JSON.parse('{"__proto__": {"a": 1}}')],
  ["text", 'quotes " and \u2028 and \u{1f600}'],
])("%s come back as they were", (_, value) => {
  const back = roundTrip(value);
  expect(back).toStrictEqual(value);
  expect(digestOf(back)).toBe(digestOf(value));
});

test("a digest depends on every value and its kind, and not on the order of keys", () => {
  expect(digestOf({ a: 1, b: { c: 2, d: 3 } })).toBe(digestOf({ b: { d: 3, c: 2 }, a: 1 }));
  const others = [{ a: 1 }, { a: "1" }, { a: [1] }, { a: null }, {}, { a: undefined }, { a: -0 }];
  const arrays = [new Uint8Array([0]), new Float32Array(1), new Uint8Array([1])];
  const digests = [...others, { a: 0 }, ...arrays, "", null].map(digestOf);
  expect(new Set(digests).size).toBe(digests.length);
});

test("what is no plain value is refused", () => {
  for (const value of [() => 1, Symbol("s"), new Map(), new Date(), { deep: [new Set()] }]) {
    expect(() => toJson(value)).toThrow(TypeError);
  }
});

test("the password of a Redis address is not in a trace, and replays do not differ for it", () => {
  const event = { welcome: { redisUrl: "redis://u:secret@host:1" } };
  expect(JSON.stringify(toJson(event))).not.toContain("secret");
  expect(digestOf(roundTrip(event))).toBe(digestOf(event));
});

const turn = { state: { at: 1 }, effects: [{ kind: "send", to: 1 }] };

async function linesOf(path: string): Promise<(TraceHead | TraceEvent)[]> {
  const lines = [];
  for await (const line of readTrace(path)) lines.push(line);
  return lines;
}

test("a trace is read as it was written, binary events included; a torn last line is left out", async () => {
  const trace = openTrace("worker", { name: "w" }, turn, folder);
  const event = { kind: "message", bytes: new Float32Array([1, Number.NaN]), none: undefined };
  trace?.note(event, turn, 12.5);
  trace?.note({ kind: "tick" }, { state: null, effects: [] });
  const path = join(folder, `worker-${process.pid}-0.jsonl`);
  writeFileSync(path, '{"n":3,"event":{"kin', { flag: "a" });
  const digests = digestsOf(turn);
  expect(await linesOf(path)).toStrictEqual([
    { trace: 1, role: "worker", pid: process.pid, initial: { name: "w" }, ...digests },
    { n: 1, event, now: 12.5, ...digests },
    { n: 2, event: { kind: "tick" }, now: null, effects: [], state: digestOf(null) },
  ]);
  expect(digests.effects).toEqual([`send ${digestOf({ to: 1, kind: "send" })}`]);
});

test("a broken line before others, and another file, are errors that name the line", async () => {
  const path = join(folder, "worker-1-0.jsonl");
  openTrace("worker", {}, turn, folder)?.note({ kind: "tick" }, turn);
  const [name = ""] = readdirSync(folder);
  const [head, event] = readFileSync(join(folder, name), "utf8").split("\n");
  writeFileSync(path, `${head}\n{"n":\n${event}\n`);
  await expect(linesOf(path)).rejects.toThrow("line 2");
  writeFileSync(path, "");
  await expect(linesOf(path)).rejects.toThrow("line 1");
});

test("two traces of one process are two files, readable by their owner alone", () => {
  for (const role of ["worker", "worker", "coordinator"] as const) {
    openTrace(role, {}, turn, folder);
  }
  const names = [
    `coordinator-${process.pid}-0`,
    `worker-${process.pid}-0`,
    `worker-${process.pid}-1`,
  ];
  expect(readdirSync(folder).sort()).toEqual(names.map((name) => `${name}.jsonl`));
  for (const name of readdirSync(folder)) {
    expect(statSync(join(folder, name)).mode & 0o077).toBe(0);
  }
});

test("without a folder there is no trace; one that cannot be written says so once and costs nothing else", () => {
  expect(openTrace("worker", {}, turn)).toBeUndefined();
  const stderr = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  const file = join(folder, "file");
  writeFileSync(file, "");
  const trace = openTrace("worker", {}, turn, join(file, "below"));
  trace?.note({ kind: "tick" }, turn);
  trace?.note({ kind: "tick" }, turn);
  expect(stderr).toHaveBeenCalledTimes(1);
  const untraceable = openTrace("worker", {}, turn, folder);
  untraceable?.note({ kind: "odd", made: new Map() }, turn);
  untraceable?.note({ kind: "tick" }, turn);
  expect(stderr).toHaveBeenCalledTimes(2);
});
