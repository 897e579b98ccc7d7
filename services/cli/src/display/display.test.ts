import { appendFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Run, RunPhase } from "@paddock/proto";
import { expect, test } from "vitest";
import type { Io } from "../io.js";
import { followSteps } from "../run/steps-tail.js";
import { duration, percent, points, rate } from "./format.js";
import { jsonDisplay } from "./json.js";
import { linesDisplay } from "./lines.js";
import { clip, plainBlock } from "./live.js";
import { milestoneWatcher } from "./milestones.js";

function recorder(): Io & { readonly text: () => string } {
  let text = "";
  return {
    out: (more) => {
      text += more;
    },
    err: () => undefined,
    isTerminal: false,
    columns: () => 80,
    environment: {},
    cwd: "/",
    text: () => text,
  };
}

function record(step: number): string {
  return JSON.stringify({
    step,
    workers: 2,
    loss: 5.5,
    losses: { dinoLocal: 3, dinoGlobal: 2, ibot: 0.5, koleo: 0, gram: 0 },
    lr: 1e-3,
  });
}

function runAt(step: number, more: Partial<Run> = {}): Run {
  return {
    runId: "r",
    name: "demo",
    phase: RunPhase.RUN_PHASE_RUNNING,
    generation: 1,
    step,
    steps: 100,
    workers: [],
    lastStepJson: step === 0 ? "" : record(step - 1),
    imagesPerSecond: 123.4,
    etaSeconds: 65,
    knnAccuracy: -1,
    checkpointStep: -1,
    waitingFor: "",
    reason: "",
    diagnosis: null,
    alert: "",
    incidents: [],
    ...more,
  };
}

test("numbers are written as people read them", () => {
  expect([0, 59.6, 61, 3_600, -1, Number.NaN].map(duration)).toEqual([
    "0 s",
    "1 min 00 s",
    "1 min 01 s",
    "1 h 00 min",
    "unknown",
    "unknown",
  ]);
  expect([0.5, 12.34, 1234.5].map(rate)).toEqual(["0.50", "12.3", "1,235"]);
  expect(percent(0.7123)).toBe("71.2 %");
  expect([points(0.5, 0.55), points(0.5, 0.45)]).toEqual(["+5.0 points", "-5.0 points"]);
});

test("lines come at most every 5 seconds, but the last step and every evaluation are shown", () => {
  const io = recorder();
  let now = 0;
  const display = linesDisplay(io, milestoneWatcher(10), () => now);
  for (let step = 1; step <= 100; step++) {
    now += 100;
    display.update(runAt(step, { knnAccuracy: step < 50 ? 0.5 : 0.6 }));
  }
  const lines = io.text().trimEnd().split("\n");
  expect(lines.filter((line) => line.startsWith("step"))).toHaveLength(3);
  expect(lines.at(-1)).toContain("step 100/100  loss 5.5000  lr 1.00e-3  123 images/s");
  expect(lines.filter((line) => line.startsWith("k-NN"))).toEqual(
    [0, 10, 20, 30, 40, 50, 60, 70, 80, 90].map((step) =>
      expect.stringContaining(`k-NN ${step < 50 ? "50.0" : "60.0"} % after ${step} steps`),
    ),
  );
});

test("an evaluation that may still be running is not reported with the accuracy of the one before", () => {
  const look = milestoneWatcher(10);
  expect(look(runAt(5, { knnAccuracy: 0.5 })).events).toHaveLength(1);
  expect(look(runAt(10, { knnAccuracy: 0.5 })).events).toEqual([]);
  expect(look(runAt(11, { knnAccuracy: 0.5 })).events).toMatchObject([{ fields: { step: 10 } }]);
  expect(look(runAt(20, { knnAccuracy: 0.7 })).events).toMatchObject([
    { fields: { step: 20, knn: 0.7 } },
  ]);
});

test("JSON lines hold every committed step, also those between two updates, and nothing else", async () => {
  const dir = await mkdtemp(join(tmpdir(), "paddock-display-"));
  const file = join(dir, "steps.jsonl");
  await writeFile(file, `${record(0)}\n`);
  const io = recorder();
  const display = jsonDisplay(io, milestoneWatcher(10), followSteps(dir));
  await appendFile(file, `${record(1)}\n${record(2)}\n{"step":3`);
  display.update(runAt(3));
  await appendFile(file, `,"loss":1}\n`);
  display.event({ kind: "draining", message: "stop", fields: { signal: "SIGINT" } });
  await writeFile(file, `${record(0)}\n`); // a lost generation: its steps are cut off, and come again
  display.update(runAt(1));
  await appendFile(file, `${record(1)}\n`);
  display.close();
  const events = io
    .text()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { event: string; step?: number });
  expect(events.map(({ event, step }) => step ?? event)).toEqual([1, 2, 3, "draining", 1]);
  await rm(dir, { recursive: true });
});

test("the block shows what the run is doing, and whom it waits for only while it does not compute", () => {
  const block = plainBlock(
    runAt(50, { knnAccuracy: 0.61, checkpointStep: 40, waitingFor: "worker 1" }),
  );
  expect(block).toEqual([
    "demo · 2 workers · generation 1",
    "━━━━━━━━━━━━━━────────────── step 50/100 · 123 images/s · ETA 1 min 05 s",
    "loss 5.5000 dinoLocal 3.000 · dinoGlobal 2.000 · ibot 0.500 · lr 1.00e-3",
    "k-NN 61.0 % · checkpoint at step 40",
  ]);
  const waiting = runAt(0, {
    phase: RunPhase.RUN_PHASE_WAITING,
    waitingFor: "1 more of 2 workers",
  });
  expect(plainBlock(waiting).at(-1)).toBe("waiting for 1 more of 2 workers");
});

test("a line is cut to the terminal's width without cutting colour codes", () => {
  const line = "\u001b[1mabcdef\u001b[22m";
  expect(clip(line, 4)).toBe("\u001b[1mabc\u001b[22m");
  expect(clip(line, 80)).toBe(line);
});
