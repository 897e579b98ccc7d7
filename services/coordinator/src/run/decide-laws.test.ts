import fc from "fast-check";
import { expect, test } from "vitest";
import { exampleSpec } from "../testing/example.js";
import { World } from "../testing/world.js";

function startedWorld(redundancy: "none" | "shadow" = "none"): World {
  const world = new World(exampleSpec({ fleet: { workers: 2, segmentSteps: 3, redundancy } }));
  world.join();
  world.join();
  return world;
}

/** What may happen at any time. */
const action = fc.oneof(
  { weight: 30, arbitrary: fc.record({ do: fc.constant("read"), whom: fc.nat(5) }) },
  { weight: 30, arbitrary: fc.record({ do: fc.constant("deliver"), whom: fc.nat(5) }) },
  { weight: 15, arbitrary: fc.record({ do: fc.constant("settle"), whom: fc.nat(30) }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("manifest"), whom: fc.nat(2) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("join"), whom: fc.nat(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("kill"), whom: fc.nat(5) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("advance"), whom: fc.nat(40) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("crash"), whom: fc.nat(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("restart"), whom: fc.nat(0) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("cut"), whom: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("leave"), whom: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("pause"), whom: fc.nat(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("resume"), whom: fc.nat(0) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("scale"), whom: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("checkpoint"), whom: fc.nat(0) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("drain"), whom: fc.nat(0) }) },
);

function act(world: World, { do: what, whom }: { do: string; whom: number }): void {
  const id = world.workers[whom % Math.max(1, world.workers.length)]?.id ?? 0;
  const actions: Record<string, () => unknown> = {
    read: () => world.read(id),
    deliver: () => world.deliver(id),
    settle: () => world.settle(whom),
    manifest: () => world.finishManifest(whom),
    join: () => world.join(),
    kill: () => world.kill(id),
    advance: () => world.advance(whom * 1000),
    crash: () => {
      checkLedger(world);
      world.crash();
    },
    restart: () => {
      checkLedger(world);
      world.restart();
    },
    cut: () => world.cut(id),
    leave: () => world.post({ kind: "leaving", id, reason: "asked" }),
    pause: () => world.post({ kind: "pause" }),
    resume: () => world.post({ kind: "resume" }),
    scale: () => world.post({ kind: "scale", workers: whom + 1 }),
    checkpoint: () => world.post({ kind: "checkpoint-now" }),
    drain: () => world.post({ kind: "drain", reason: "drain" }),
  };
  actions[what]?.();
  if (world.state.outcome?.kind === "interrupted") world.crash();
  if (world.state.outcome === null && world.workers.length === 0) world.join();
}

function checkLedger(world: World): void {
  expect(world.folded()).toEqual(world.state.durable);
  let generation = 0;
  let next = 0;
  for (const record of world.records) {
    if (record.kind === "generation") {
      expect(record.generation).toBe(generation + 1);
      expect(record.step).toBeLessThanOrEqual(next);
      generation = record.generation;
      next = record.step;
    } else if (record.kind === "commit") {
      expect(record).toMatchObject({ generation, step: next });
      next += 1;
    } else if (record.kind === "checkpoint") {
      expect(record.step).toBeLessThanOrEqual(next);
    }
  }
  const newest = world.state.durable.checkpoints.at(-1);
  if (newest) expect(world.folders).toContain(newest.step);
}

test.each(["none", "shadow"] as const)(
  "redundancy %s: whatever happens, the ledger stays lawful, and the run ends with the numbers of an undisturbed one",
  (redundancy) => {
    const undisturbed = startedWorld();
    undisturbed.settle();
    const numbers = undisturbed.steps.map(({ step, loss, gradNorm }) => ({ step, loss, gradNorm }));
    fc.assert(
      fc.property(fc.array(action, { maxLength: 120, size: "max" }), (actions) => {
        const world = startedWorld(redundancy);
        for (const what of actions) act(world, what);
        checkLedger(world);
        world.post({ kind: "resume" });
        for (let i = 0; i < 20 && world.state.outcome?.kind !== "finished"; i++) {
          if (world.state.outcome) world.crash(); // drained: resume
          while (world.workers.length < world.state.wanted) world.join();
          world.settle();
          world.advance(31_000);
          for (const { id } of [...world.workers]) world.deliver(id);
        }
        expect(world.state.outcome).toEqual({ kind: "finished" });
        expect(world.steps.map(({ step, loss, gradNorm }) => ({ step, loss, gradNorm }))).toEqual(
          numbers,
        );
        checkLedger(world);
      }),
      { numRuns: 40 },
    );
  },
);
