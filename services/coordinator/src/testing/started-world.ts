/** Worlds at work, and what tests of `decide` do with them. */
import { exampleSpec } from "./example.js";
import { World } from "./world.js";

/** A world whose first generation is at work: with messages of step 0 on their way. */
export function startedWorld(
  overrides: Parameters<typeof exampleSpec>[0] = {},
  workers = 2,
): World {
  const world = new World(
    exampleSpec({ fleet: { workers, segmentSteps: 3, leaseSeconds: 30 }, ...overrides }),
  );
  for (let i = 0; i < workers; i++) world.join();
  return world;
}

/** One message of the worker comes in and one goes out to it. */
export function exchange(world: World, id: number): void {
  world.read(id);
  world.deliver(id);
}

/** Lets those whose generation is over say what they hold. */
export function rest(world: World): void {
  for (const { id } of world.state.workers) {
    while (world.state.workers.some((worker) => worker.id === id && worker.owesHeld !== null)) {
      exchange(world, id);
    }
  }
}

/** Steps of the checkpoints that became durable, in order. */
export function checkpointsOf(world: World): number[] {
  return world.records.flatMap((r) => (r.kind === "checkpoint" ? [r.step] : []));
}
