import { PaddockError } from "@paddock/contract";
import { DecisionKind } from "@paddock/proto";
import { createLogger, diskError } from "@paddock/service-kit";
import { expect, test, vi } from "vitest";
import { type Ledger, openMemoryLedger } from "../ledger/ledger.js";
import { fold, type RunRecord } from "../run/durable.js";
import type { Checkpoints } from "../run-dir/checkpoints.js";
import { examplePrepared, exampleSpec } from "../testing/example.js";
import { createRunner, type RunnerParts } from "./runner.js";

const spec = exampleSpec({ fleet: { workers: 1 }, evaluation: { everySteps: 0 } });
const process = { host: "h", pid: 1, engine: "e", device: "d" };
const info = { id: 1, name: "w", ...process, peerAddress: "p", holdings: [] };

function decisionName(kind: DecisionKind): string {
  return kind === DecisionKind.DECISION_KIND_COMMIT ? "commit" : "abort";
}

/** A runner with one worker, and everything that happened in the order in which it happened. */
function startRunner(overrides: Partial<RunnerParts> = {}) {
  const happened: string[] = [];
  const note = (what: string): void => void happened.push(what);
  const records: RunRecord[] = [{ kind: "run", runId: "r", spec, unixMs: 0 }];
  const memory = openMemoryLedger(records);
  const ledger: Ledger = {
    ...memory,
    append: async (record) => {
      await new Promise((resolve) => setImmediate(resolve));
      note(`append ${record.kind}`);
      await memory.append(record);
    },
  };
  const durable = fold(records);
  if (!durable) throw new Error("expected a run");
  const runner = createRunner(durable, {
    ledger,
    steps: {
      write: async () => note("write step"),
      truncate: async (step) => step,
      sync: async () => note("sync steps"),
      ends: async () => undefined,
      close: async () => undefined,
    },
    checkpoints: {
      commit: async ({ step }) => `sha of ${step}`,
      keep: async () => undefined,
      verify: async () => undefined,
      pathOf: String,
    },
    segments: { want: () => undefined },
    sessions: {
      send: (_id, message) =>
        note(
          `send ${message.kind === "decision" ? decisionName(message.decision.kind) : message.kind}`,
        ),
      dismiss: () => note("dismiss"),
    },
    log: createLogger({ name: "test", level: "silent" }),
    now: () => 0,
    onChange: () => undefined,
    ...overrides,
  });
  return { runner, happened, records };
}

function prepared(runner: ReturnType<typeof createRunner>, step: number) {
  const position = { generation: 1, step, worker: 0, workers: 1 };
  const message = examplePrepared(spec, runner.state.layout, position);
  return { kind: "prepared", id: 1, prepared: message } as const;
}

test("effects are carried out in order, each after the one before is durable, also when events pile up", async () => {
  const { runner, happened } = startRunner();
  void runner.post({ kind: "joined", worker: info });
  void runner.post(prepared(runner, 0));
  await runner.post(prepared(runner, 1));
  const step = ["write step", "append commit", "send commit"];
  expect(happened).toEqual(["append generation", "send assignment", ...step, ...step]);
});

test("a commit that cannot be recorded is never announced: the run fails with the disk's reason", async () => {
  const append: Ledger["append"] = async ({ kind }) => {
    if (kind !== "commit") return;
    throw new PaddockError("disk-unavailable", "expected to append, received ENOSPC");
  };
  const { runner, happened } = startRunner({ ledger: { ...openMemoryLedger(), append } });
  await runner.post({ kind: "joined", worker: info });
  await runner.post(prepared(runner, 0));
  const ending = ["send abort", "send shutdown", "dismiss"];
  expect(happened).toEqual(["send assignment", "write step", ...ending]);
  expect(await runner.ended).toMatchObject({ kind: "failed", code: "disk-unavailable" });
});

const noRoom = diskError(Object.assign(new Error("no space left"), { code: "ENOSPC" }), "append");

/** A ledger on a disk that has room or not. */
function smallDisk() {
  const disk = { hasRoom: true, tries: 0 };
  const memory = openMemoryLedger();
  const append: Ledger["append"] = async (record) => {
    disk.tries++;
    if (!disk.hasRoom) throw noRoom;
    await memory.append(record);
  };
  return { disk, ledger: { ...memory, append } };
}

test("a run waits for room on a full disk, says so, and prolongs the leases that ended meanwhile", async () => {
  const { disk, ledger } = smallDisk();
  let nowMs = 0;
  const { runner, happened } = startRunner({ ledger, now: () => nowMs, diskRetryMs: 1 });
  await runner.post({ kind: "joined", worker: info });
  disk.hasRoom = false;
  disk.tries = 0;
  const committed = runner.post(prepared(runner, 0));
  const ticked = runner.post({ kind: "tick" });
  await vi.waitFor(() => expect(disk.tries).toBeGreaterThan(3));
  expect(runner.diskFull).toMatchObject({ sinceMs: 0, reason: expect.stringMatching(/ENOSPC/) });
  expect(happened).not.toContain("send commit");
  nowMs = 10 * 1000 * spec.fleet.leaseSeconds;
  disk.hasRoom = true;
  await Promise.all([committed, ticked]);
  expect(runner.diskFull).toBeNull();
  expect(happened.slice(-2)).toEqual(["write step", "send commit"]);
  expect(runner.state.active?.generation).toBe(1);
});

test("a run that is stopped while its disk is full fails with the disk's reason", async () => {
  const { disk, ledger } = smallDisk();
  const { runner } = startRunner({ ledger, diskRetryMs: 60_000 });
  await runner.post({ kind: "joined", worker: info });
  disk.hasRoom = false;
  void runner.post(prepared(runner, 0));
  await vi.waitFor(() => expect(runner.diskFull).not.toBeNull());
  await runner.stop();
  expect(await runner.ended).toMatchObject({ kind: "failed", code: "disk-unavailable" });
});

test("a checkpoint becomes durable in the background and enters the ledger after the steps are", async () => {
  const { runner, happened, records } = startRunner();
  await runner.post({ kind: "joined", worker: info });
  for (let step = 0; step < 4; step++) await runner.post(prepared(runner, step));
  const written = {
    generation: 1,
    step: 4,
    file: "f",
    bytes: 1,
    sha256: "",
    worker: 0,
    headBytes: 0,
    headSha256: "",
    ghash: "",
  };
  happened.splice(0);
  await runner.post({ kind: "checkpoint-written", id: 1, written });
  while (records.at(-1)?.kind !== "checkpoint") await new Promise((done) => setImmediate(done));
  expect(happened).toEqual(["sync steps", "append checkpoint"]);
  expect(records.at(-1)).toMatchObject({ step: 4, manifest: "sha of 4" });
});

test("old checkpoints that cannot be deleted do not stop the run", async () => {
  const checkpoints: Checkpoints = {
    commit: async () => "",
    verify: async () => undefined,
    pathOf: String,
    keep: async () => {
      throw new Error("EBUSY");
    },
  };
  const { runner, happened } = startRunner({ checkpoints });
  await runner.post({ kind: "joined", worker: info });
  expect(happened).toEqual(["append generation", "send assignment"]);
});

test("workers that contradict the layout fail the run instead of the coordinator", async () => {
  const { runner } = startRunner();
  await runner.post({ kind: "joined", worker: info });
  const event = prepared(runner, 0);
  await runner.post({ ...event, prepared: { ...event.prepared, normRoots: [] } });
  expect(await runner.ended).toMatchObject({
    kind: "failed",
    code: "internal",
    reason: expect.stringContaining("built from one commit"),
  });
});

test("a stopped runner deals with what it had and ignores the rest", async () => {
  const { runner, happened } = startRunner();
  void runner.post({ kind: "joined", worker: info });
  const stopped = runner.stop();
  await runner.post({ kind: "gone", id: 1, reason: "cut" });
  await stopped;
  expect(happened).toEqual(["append generation", "send assignment"]);
});
