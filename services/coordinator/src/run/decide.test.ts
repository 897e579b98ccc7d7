import { expect, test } from "vitest";
import { examplePrepared, exampleSpec } from "../testing/example.js";
import { checkpointsOf, exchange, rest, startedWorld } from "../testing/started-world.js";
import { World } from "../testing/world.js";
import type { Effect } from "./event.js";

function commitsOf(world: World): number {
  return world.records.filter(({ kind }) => kind === "commit").length;
}

function kindsOf(effects: readonly Effect[]): string[] {
  return effects.map((effect) =>
    effect.kind === "append" ? `append ${effect.record.kind}` : effect.kind,
  );
}

function sentTo(world: World, id: number) {
  return world.workers.find((worker) => worker.id === id)?.inbox ?? [];
}

test("the run waits for all its workers and then starts generation 1, recorded before anybody is told", () => {
  const world = new World(exampleSpec());
  world.join();
  world.advance(1_000_000);
  expect(world.state.active).toBeNull();
  world.join();
  expect(world.records.at(-1)).toMatchObject({ kind: "generation", generation: 1, step: 0 });
  expect(sentTo(world, 1)[0]).toMatchObject({
    kind: "assignment",
    assignment: {
      generation: 1,
      worker: 0,
      workers: 2,
      startStep: 0,
      loadCheckpoint: false,
      evaluateFirst: true,
      segmentQueue: "paddock-r-g1-w0",
      peers: [
        { worker: 0, workerName: "w1", peerAddress: "h:1" },
        { worker: 1, workerName: "w2", peerAddress: "h:2" },
      ],
    },
  });
});

test("a commit is in steps.jsonl before the ledger, and in the ledger before it is sent", () => {
  const world = startedWorld();
  for (const { id } of world.workers) for (let i = 0; i < 3; i++) world.read(id);
  world.deliver(1);
  world.deliver(1);
  world.deliver(1);
  world.deliver(2);
  const [event] = world.workers[1]?.outbox ?? [];
  if (!event) throw new Error("expected a prepared message");
  const kinds = kindsOf(world.post(event));
  expect(kinds).toEqual(["write-step", "append commit", "send", "send"]);
});

test("a whole run commits every step once, with checkpoints and evaluations where the spec wants them", () => {
  const world = startedWorld();
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(world.steps.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  const steps = (kind: string) =>
    world.records.flatMap((r) => (r.kind === kind && "step" in r ? [r.step] : []));
  expect(steps("checkpoint")).toEqual([4, 8, 10]);
  expect(steps("evaluation")).toEqual([0, 4, 8, 10]);
  expect([...world.folders]).toEqual([8, 10]);
  expect(world.records.at(-1)?.kind).toBe("finished");
});

test("messages of another generation, step or worker change nothing but a counter", () => {
  const world = startedWorld();
  world.runTo(2);
  const { durable, active } = world.state;
  const progress = { generation: 7, step: 2, phase: "data", waitingOn: [] };
  world.post({ kind: "progress", id: 1, progress });
  world.post({ kind: "progress", id: 99, progress: { ...progress, generation: 1 } });
  const written = {
    generation: 1,
    step: 3,
    file: "f",
    bytes: 1,
    sha256: "",
    worker: 0,
    headBytes: 0,
    headSha256: "",
    ghash: "",
  };
  world.post({ kind: "checkpoint-written", id: 1, written });
  for (const position of [
    { generation: 7, step: 2 },
    { generation: 1, step: 3 },
  ]) {
    const { spec, layout } = { spec: world.spec, layout: world.state.layout };
    const prepared = examplePrepared(spec, layout, { ...position, worker: 0, workers: 2 });
    world.post({ kind: "prepared", id: 1, prepared });
  }
  const evaluation = {
    generation: 1,
    step: 4,
    knnAccuracy: 1,
    bank: 1,
    queries: 1,
    seconds: 1,
  };
  world.post({ kind: "evaluation-done", id: 1, evaluation });
  const failure = { generation: 3, step: 0, code: "internal", message: "of yesterday" };
  world.post({ kind: "failed", id: 1, failure });
  expect(world.state.durable).toBe(durable);
  expect(world.state.active).toBe(active);
  expect(world.state.counters.staleMessages).toBe(7);
});

test("a prepared message that comes twice counts once", () => {
  const world = startedWorld();
  world.read(1);
  const event = world.workers[0]?.outbox.find(({ kind }) => kind === "prepared");
  if (!event) throw new Error("expected a prepared message");
  world.post(event);
  world.post(event);
  expect(world.state.durable.next).toBe(0);
  expect(world.state.counters.staleMessages).toBe(1);
});

test("a lost worker ends the generation; survivors are told at once and wait for a replacement", () => {
  const world = startedWorld();
  world.runTo(6);
  world.kill(1);
  expect(world.state.active).toBeNull();
  expect(sentTo(world, 2).at(-1)).toMatchObject({
    kind: "decision",
    decision: { generation: 1, step: 6, kind: 3 },
  });
  rest(world);
  world.advance(29_000);
  expect(world.state.active).toBeNull();
  world.join();
  expect(world.state.active).toMatchObject({ generation: 2, startStep: 4, members: [2, 3] });
  expect(world.steps.map(({ step }) => step)).toEqual([0, 1, 2, 3]);
});

test("without a replacement the survivors go on alone after the grace period", () => {
  const world = startedWorld();
  world.runTo(6);
  world.kill(1);
  rest(world);
  world.advance(30_000);
  expect(world.state.active).toMatchObject({ generation: 2, startStep: 4, members: [2] });
  world.runTo(8);
  world.join();
  world.settle();
  const generations = world.records.filter(({ kind }) => kind === "generation");
  expect(generations.map((r) => r.kind === "generation" && r.workers)).toEqual([2, 1, 2]);
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("a failure that a retry can cure ends the generation, and a hopeless loop ends the run", () => {
  const world = startedWorld();
  for (let i = 1; i < 8; i++) {
    const { generation } = world.state.durable;
    expect(generation).toBe(i);
    const failure = { generation, step: 0, code: "exchange-timeout", message: "no tensors" };
    world.post({ kind: "failed", id: 1, failure });
    expect(world.state.active).toBeNull();
    rest(world);
    world.advance(10_000);
  }
  const failure = { generation: 8, step: 0, code: "exchange-timeout", message: "no tensors" };
  world.post({ kind: "failed", id: 1, failure });
  expect(world.state.outcome).toMatchObject({ kind: "failed", code: "exchange-timeout" });
});

test("a newcomer that cannot start does not end a run that works without it", () => {
  const world = startedWorld();
  const id = world.join();
  const failure = { generation: 0, step: 0, code: "engine-unavailable", message: "no libtorch" };
  expect(kindsOf(world.post({ kind: "failed", id, failure }))).toEqual(["log", "dismiss"]);
  world.kill(id);
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("while paused no step is committed; leases of those who wait do not run out", () => {
  const world = startedWorld();
  world.runTo(2);
  world.post({ kind: "pause" });
  world.settle();
  expect(world.state.durable.next).toBe(2);
  world.advance(1_000_000);
  expect(world.state.workers.length).toBe(2);
  world.post({ kind: "resume" });
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("scaling starts a generation of the new size at the next step boundary, from what the workers hold", () => {
  const world = startedWorld();
  world.join();
  world.runTo(2);
  world.post({ kind: "scale", workers: 3 });
  world.settle();
  const generations = world.records.filter((record) => record.kind === "generation");
  expect(generations).toMatchObject([
    { workers: 2, step: 0 },
    { workers: 3, step: 3, reason: "from 2 to 3 of 3 workers" },
  ]);
  expect(commitsOf(world)).toBe(10); // none in vain
  expect(checkpointsOf(world)).toEqual([4, 8, 10]); // none for the sake of it
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("a checkpoint that is being written is waited for before the members change", () => {
  const world = startedWorld();
  world.join();
  world.runTo(3);
  world.post({ kind: "scale", workers: 3 });
  world.runTo(4);
  expect(world.state.active).toMatchObject({ regroupAt: 4 });
  for (let i = 0; i < 10; i++) for (const id of [1, 2]) exchange(world, id); // the disk is slow
  expect(world.state.durable.next).toBe(4);
  world.settle();
  expect(world.records.filter(({ kind }) => kind === "generation")).toMatchObject([
    { step: 0 },
    { workers: 3, step: 4 },
  ]);
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("a drain commits the step in progress with a checkpoint, and the run can be resumed", () => {
  const world = startedWorld();
  world.runTo(6);
  world.post({ kind: "drain", reason: "SIGTERM" });
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "interrupted", reason: "SIGTERM" });
  expect(world.state.durable.checkpoints.at(-1)?.step).toBe(7);
  expect(world.records.some(({ kind }) => kind === "finished")).toBe(false);
  world.crash();
  world.join();
  world.join();
  world.settle();
  expect(world.state.outcome).toEqual({ kind: "finished" });
});

test("a drain that could lose nothing ends at once", () => {
  const waiting = new World(exampleSpec());
  waiting.post({ kind: "drain", reason: "SIGINT" });
  expect(waiting.state.outcome).toEqual({ kind: "interrupted", reason: "SIGINT" });
  const started = startedWorld();
  started.post({ kind: "drain", reason: "SIGINT" });
  expect(started.state.outcome).toEqual({ kind: "interrupted", reason: "SIGINT" });
  expect(sentTo(started, 1)).toEqual([]); // dismissed: nothing more to read
});

test("a worker that leaves a drain before its file is written costs the drain, not the run", () => {
  const world = startedWorld();
  world.runTo(6);
  world.post({ kind: "drain", reason: "SIGINT" });
  world.runTo(7);
  world.kill(2);
  rest(world);
  expect(world.state.outcome).toMatchObject({
    kind: "interrupted",
    reason: expect.stringMatching(/^SIGINT; not drained: worker w2 is gone/),
  });
  expect(world.state.durable.checkpoints.at(-1)?.step).toBe(4);
});

test("a run whose last checkpoint is durable finishes without workers", () => {
  const world = startedWorld();
  world.settle();
  world.records.pop(); // the crash came before "finished" was recorded
  world.crash();
  world.advance(200);
  expect(world.state.outcome).toEqual({ kind: "finished" });
  expect(world.records.at(-1)?.kind).toBe("finished");
});

test("a step that is not finite is skipped with half the loss scale, and twenty in a row fail the run", () => {
  const fp16 = { exchange: { dtype: "fp16", initialScale: 2 ** 16, scaleGrowthSteps: 3 } } as const;
  const world = startedWorld({ ...fp16, steps: 100, evaluation: { everySteps: 0 } });
  const bad = (step: number) => step >= 7;
  for (let i = 0; i < 10_000 && world.state.outcome === null; i++) {
    for (const worker of [...world.workers]) {
      world.read(worker.id);
      const event = worker.outbox.shift();
      if (event?.kind === "prepared" && bad(event.prepared.step)) {
        const tensor = "dino_head.mlp.bias";
        const offenders = [{ order: 2_000_000, tensor, rank: -1, samples: [] }];
        const prepared = { ...event.prepared, finite: false, offenders };
        world.post({ ...event, prepared });
      } else if (event) world.post(event);
    }
    world.finishManifest(0);
  }
  const scales = world.steps.map(({ lossScale }) => Math.log2(lossScale));
  expect(scales.slice(0, 10)).toEqual([16, 16, 16, 17, 17, 17, 18, 18, 17, 16]);
  expect(world.steps.map(({ skipped }) => skipped).indexOf(true)).toBe(7);
  expect(world.state.outcome).toMatchObject({
    kind: "failed",
    code: "non-finite",
    reason: expect.stringMatching(/the last one step 26; first seen in dino_head.mlp.bias/),
  });
});
