/** `npm run check:protocol -- --replay`: a real run with a killed worker and a killed coordinator does again what it did, and a changed trace does not. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ReplayReport, replayFolder } from "../protocol/replay.js";
import { type Fleet, startFleet } from "../support/fleet.js";
import { readSteps, scratch, writeTinyRun } from "../support/paddock.js";

const folder = scratch();
const traces = join(folder.path, "traces");
const steps = 24;
let report: ReplayReport;
let fleet: Fleet | undefined;

beforeAll(async () => {
  const spec = writeTinyRun(folder.path, {
    steps,
    exchange: { dtype: "fp16", initialScale: 256 },
    fleet: { workers: 2, leaseSeconds: 3, redundancy: "shadow" },
  });
  const environment = { PADDOCK_TRACE: traces };
  fleet = await startFleet({ directory: folder.path, name: "traced", spec, environment });
  const coordinator = fleet.startCoordinator();
  const victim = fleet.startWorker("a");
  const others = ["b", "spare"].map((name) => fleet?.startWorker(name));
  await fleet.committed(6);
  victim.kill("SIGKILL");
  const commits = readSteps(fleet.runDir).length;
  await fleet.committed(commits + 5);
  coordinator.kill("SIGKILL");
  await coordinator.ended;
  const second = fleet.startCoordinator(true);
  expect(await second.ended, second.log()).toBe(0);
  for (const other of others) expect(await other?.ended, other?.log()).toBe(0);
  report = await replayFolder(traces);
});
afterAll(async () => {
  await fleet?.stop();
  folder.remove();
});

test("every process's trace replays to the same effects and states, and no invariant is broken", () => {
  expect(report.violations).toEqual([]);
  const kinds = report.rows.map(({ name }) => name.split("-")[0]);
  expect(kinds.filter((kind) => kind === "coordinator")).toHaveLength(2);
  expect(kinds.filter((kind) => kind === "worker")).toHaveLength(3);
  expect(new Set(report.rows.map(({ runId }) => runId)).size).toBe(1);
  const decided = report.rows.filter(({ name }) => name.startsWith("coordinator"));
  expect(decided.reduce((sum, row) => sum + row.steps, 0)).toBeGreaterThanOrEqual(steps);
  expect(report.rows.every(({ events }) => events > 0)).toBe(true);
});

const renumbered = (lines: string[]): string[] =>
  lines.map((line, n) => JSON.stringify({ ...JSON.parse(line), ...(n === 0 ? {} : { n }) }));

/** The first line of such an event, in a trace with one. */
function find(role: string, kind: string): { name: string; lines: string[]; at: number } {
  for (const name of readdirSync(traces).sort()) {
    const lines = readFileSync(join(traces, name), "utf8").trimEnd().split("\n");
    const at = lines.findIndex((line, n) => n > 0 && JSON.parse(line).event.kind === kind);
    if (name.startsWith(role) && at > 0) return { name, lines, at };
  }
  throw new Error(`no trace of a ${role} has an event "${kind}"`);
}

async function replayChanged(name: string, changed: readonly string[]): Promise<ReplayReport> {
  const copy = join(folder.path, `changed-${Math.random().toString(36).slice(2)}`);
  mkdirSync(copy);
  for (const each of readdirSync(traces)) copyFileSync(join(traces, each), join(copy, each));
  writeFileSync(join(copy, name), `${changed.join("\n")}\n`);
  return await replayFolder(copy);
}

test.each([
  ["coordinator", "prepared"],
  ["worker", "prepared"],
])(
  "a %s's event that is missing or there twice is named, numbered anew or not",
  async (role, kind) => {
    const { name, lines, at } = find(role, kind);
    const removed = lines.toSpliced(at, 1);
    const doubled = lines.toSpliced(at, 0, lines[at] as string);
    for (const changed of [removed, doubled]) {
      const { violations } = await replayChanged(name, changed);
      expect(violations).toEqual([expect.stringContaining("one is missing or there twice")]);
      const { violations: anew } = await replayChanged(name, renumbered(changed));
      expect(anew).toEqual([expect.stringMatching(/differs: expected .+ as recorded, received/)]);
      expect(anew[0]).toContain(name);
    }
  },
);

test("another value in an event is found", async () => {
  const { name, lines, at } = find("coordinator", "prepared");
  const line = JSON.parse(lines[at] as string);
  line.event.prepared.images += 1;
  const { violations } = await replayChanged(name, lines.with(at, JSON.stringify(line)));
  expect(violations).toEqual([expect.stringContaining("(prepared): the state differs")]);
});

test("a decision that no coordinator's trace has is found from the worker's", async () => {
  const first = readdirSync(traces).find((name) => {
    const [head = ""] = readFileSync(join(traces, name), "utf8").split("\n");
    return name.startsWith("coordinator") && JSON.parse(head).initial.durable.generation === 0;
  }) as string;
  const lines = readFileSync(join(traces, first), "utf8").trimEnd().split("\n");
  // As if it had been killed a little earlier, before commits of which workers and the other coordinator know.
  const appending = lines.flatMap((line, n) => (line.includes('"append ') ? [n] : []));
  const { violations } = await replayChanged(first, lines.slice(0, appending.at(-4)));
  expect(violations.some((what) => what.includes("which the ledger does not have"))).toBe(true);
  expect(violations.some((what) => what.includes("goes on from what was appended"))).toBe(true);
});

test("a message that a coordinator heard and no worker's trace has is found", async () => {
  const { name, lines, at } = find("worker", "prepared");
  const { violations } = await replayChanged(name, lines.slice(0, at));
  expect(violations.some((what) => what.endsWith("heard, and never said"))).toBe(true);
});
