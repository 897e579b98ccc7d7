/** Where the shards of a new generation come from: the seed, a checkpoint, or the memories of other workers. */
import { type Assignment } from "@paddock/proto";
import { type Context, expectThat, type Memory, type ModelWorker, type World } from "./world.js";

/** Exactly the updates 0..step-1, in order. */
export function holdsPrefix(memory: Memory | undefined, step: number): boolean {
  return memory?.history.length === step && memory.history.every((update, i) => update === i);
}

/** Indices of the shards in a cut for `from` workers that overlap the shard `index` of one for `to` workers. */
function overlapping(index: number, to: number, from: number): number[] {
  return Array.from({ length: from }, (_, old) => old).filter(
    (old) => old * to < (index + 1) * from && index * from < (old + 1) * to,
  );
}

function shardsOf({ worker, shadow }: Assignment): number[] {
  return shadow >= 0 ? [worker, shadow] : [worker];
}

function sourcesOf(assignment: Assignment): number[] {
  const { live, workers } = assignment;
  if (!live) return [];
  const all = shardsOf(assignment).flatMap((shard) => overlapping(shard, workers, live.workers));
  return [...new Set(all)];
}

function holderOf(world: World, { live }: Assignment, shard: number): ModelWorker | undefined {
  const address = live?.holders.find(({ worker }) => worker === shard)?.peerAddress;
  return world.workers.find(
    (worker) => worker.alive && worker.state.facts.hello.peerAddress === address,
  );
}

/** Whether all that must be read is there to be read now. */
export function isReadable({ subject }: Context, world: World, assignment: Assignment): boolean {
  const { live, startStep } = assignment;
  if (!live) return true;
  return sourcesOf(assignment).every((shard) => {
    const holder = holderOf(world, assignment, shard);
    if (!holder || holder.paused) return false;
    return subject
      .readableHoldings(holder.state)
      .some(({ generation, step }) => generation === live.generation && step === startStep);
  });
}

/** The shards after loading. What is read must be what the assignment says. */
export function loadedFrom(_context: Context, world: World, assignment: Assignment): Memory {
  const { generation, workers, startStep, live } = assignment;
  for (const shard of sourcesOf(assignment)) {
    const holder = holderOf(world, assignment, shard);
    const memory = holder?.memories.find((one) => one.generation === live?.generation);
    expectThat(
      memory !== undefined && memory.shards.includes(shard) && holdsPrefix(memory, startStep),
      () =>
        `live start: shard ${shard} of generation ${live?.generation} at step ${startStep} read from ` +
        `w${holder?.index}, which holds ${memory ? `shards ${memory.shards} with ${memory.history}` : "nothing"}`,
    );
  }
  return {
    generation,
    workers,
    shards: shardsOf(assignment),
    history: Array.from({ length: startStep }, (_, step) => step),
    gradient: null,
  };
}
