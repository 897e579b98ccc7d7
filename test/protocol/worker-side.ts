/** What happens in and around a worker. */
import { layoutOf, type NormSum, nodesOf, type RunSpec, ranksOf } from "@paddock/contract";
import type { Holding, LiveSource, Prepared } from "@paddock/proto";
import { decideWorker, type WorkerEffect, type WorkerEvent } from "@paddock/worker/protocol";
import { demand } from "./violation.js";
import type { Activity, Content, Node, World } from "./world.js";
import { idleNode } from "./world.js";

/** Lets a worker's mind deal with an event. */
export function tellWorker(world: World, index: number, event: WorkerEvent): World {
  const node = world.nodes[index] as Node;
  if (!node.mind) return world;
  const { state, effects } = decideWorker(node.mind, event);
  let after = withNode(world, index, { mind: state });
  for (const effect of effects) after = carryOut(after, index, effect);
  return after;
}

function carryOut(world: World, index: number, effect: WorkerEffect): World {
  const node = world.nodes[index] as Node;
  const begin = (activity: Activity): World =>
    withNode(world, index, { activities: [...node.activities, activity] });
  switch (effect.kind) {
    case "connect":
      return withNode(world, index, { wantsStream: true });
    case "send":
      return node.isOpen && !node.lostHere
        ? withNode(world, index, { toCoordinator: [...node.toCoordinator, effect.message] })
        : world;
    case "load":
      return begin({ kind: "load", assignment: effect.assignment });
    case "compute": {
      const { generation, step } = effect;
      demandContent(node, generation, step, "computes");
      const sent = `${generation} ${step} ${indexIn(node, generation)}`;
      const computed = world.computed.includes(sent) ? world.computed : [...world.computed, sent];
      return withNode({ ...world, computed }, index, {
        activities: [...node.activities, { kind: "compute", generation, step }],
      });
    }
    case "apply":
      return begin({ kind: "apply", decision: effect.decision });
    case "checkpoint": {
      const { generation, step } = effect;
      demandContent(node, generation, step, "saves");
      return begin({ kind: "write", generation, step });
    }
    case "interrupt":
      return begin({ kind: "interrupt", generation: effect.generation });
    case "forget": {
      const contents = node.contents.filter(({ generation }) => generation !== effect.generation);
      return withNode(world, index, { contents });
    }
    case "end":
    case "die":
      return withNode(world, index, { ...idleNode, isGone: true, lostThere: node.session !== 0 });
    case "serve":
    case "evaluate":
    case "segment-done":
    case "pictures":
      return world;
  }
}

/** The activities of a worker that may end now. */
export function finishable(world: World, index: number): readonly Activity[] {
  const node = world.nodes[index] as Node;
  const has = (kind: Activity["kind"]): boolean =>
    node.activities.some((activity) => activity.kind === kind);
  return node.activities.filter((activity) => {
    if (activity.kind === "compute") return isComputed(world, node, activity);
    if (activity.kind === "apply") return !has("write");
    if (activity.kind === "interrupt") return !has("apply") && !has("write");
    return true;
  });
}

/** Everybody's gradients of the step are on their way. */
function isComputed(
  world: World,
  node: Node,
  { generation, step }: { readonly generation: number; readonly step: number },
): boolean {
  const { workers = 0 } = node.mind?.running?.assignment ?? {};
  return Array.from({ length: workers }, (_, w) => `${generation} ${step} ${w}`).every((sent) =>
    world.computed.includes(sent),
  );
}

export function finish(world: World, index: number, activity: Activity): World {
  const node = world.nodes[index] as Node;
  const rest = node.activities.filter((other) => other !== activity);
  const after = withNode(world, index, { activities: rest });
  switch (activity.kind) {
    case "load":
      return finishLoad(after, index, activity);
    case "compute": {
      const { generation, step } = activity;
      const report = reportOf(world, node);
      return tellWorker(after, index, { kind: "prepared", generation, step, report });
    }
    case "apply":
      return finishApply(after, index, activity);
    case "write":
      return finishWrite(after, index, activity);
    case "interrupt": {
      const { generation } = activity;
      // What was interrupted is over with it.
      return tellWorker(withNode(after, index, { activities: [] }), index, {
        kind: "rested",
        generation,
      });
    }
  }
}

function finishLoad(
  world: World,
  index: number,
  { assignment }: Extract<Activity, { kind: "load" }>,
): World {
  const node = world.nodes[index] as Node;
  const { generation, startStep: steps, live, loadCheckpoint, workers } = assignment;
  if (live && !areThere(world, live, steps)) {
    const failure = { code: "stale-generation", message: "a holder is gone" } as const;
    return tellWorker(world, index, { kind: "failed", generation, step: steps, ...failure });
  }
  if (loadCheckpoint) {
    const isThere = world.files.some((file) => file.step === steps);
    demand(isThere, `the checkpoint of step ${steps} is on disk when it is loaded`);
  } else if (!live) demand(steps === 0, "only step 0 is made from the seed");
  const content: Content = { generation, steps };
  const contents = [...node.contents.filter((c) => c.generation !== generation), content];
  const isInterrupted = node.activities.some(({ kind }) => kind === "interrupt");
  const loaded = withNode(world, index, { contents });
  if (isInterrupted) return loaded;
  const told = tellWorker(loaded, index, { kind: "loaded", generation });
  // Jobs may come twice: it makes no difference.
  const segment = { kind: "segment", generation, start: steps, end: world.spec.steps } as const;
  demand(workers <= world.nodes.length, "no more members than workers");
  return tellWorker(tellWorker(told, index, segment), index, segment);
}

/** Each holder answers for what it is named for, or has gone on, or is dead: then the load fails. */
function areThere(world: World, { generation, holders }: LiveSource, step: number): boolean {
  return holders.every(({ worker, peerAddress }) => {
    const holder = world.nodes[Number(peerAddress)];
    const held = holder?.mind?.holdings.find(
      (h) => h.generation === generation && h.step === step && keeps(h, worker),
    );
    if (!holder || !held) return false;
    const content = holder.contents.find((c) => c.generation === generation);
    demand(content?.steps === step, `w${peerAddress} says step ${step}, has ${content?.steps}`);
    return true;
  });
}

function keeps(held: Holding, shard: number): boolean {
  return held.worker === shard || held.shadow === shard;
}

function finishApply(
  world: World,
  index: number,
  { decision }: Extract<Activity, { kind: "apply" }>,
): World {
  const { generation, step } = decision;
  const node = world.nodes[index] as Node;
  demandContent(node, generation, step, "applies");
  const contents = node.contents.map((content) =>
    content.generation === generation ? { generation, steps: step + 1 } : content,
  );
  return tellWorker(withNode(world, index, { contents }), index, {
    kind: "applied",
    generation,
    step,
  });
}

function finishWrite(
  world: World,
  index: number,
  { generation, step }: Extract<Activity, { kind: "write" }>,
): World {
  const node = world.nodes[index] as Node;
  demandContent(node, generation, step, "has saved");
  const worker = indexIn(node, generation);
  const file = { generation, step, worker };
  const isKnown = world.files.some(
    (f) => f.generation === generation && f.step === step && f.worker === worker,
  );
  const saved = isKnown ? world : { ...world, files: [...world.files, file] };
  const noHead = { headBytes: 0, headSha256: "", ghash: "" };
  const written = { ...file, file: `${generation}-${worker}`, bytes: 1, sha256: "", ...noHead };
  return carryOut(saved, index, {
    kind: "send",
    message: { kind: "checkpointWritten", checkpointWritten: written },
  });
}

/** Its place in the generation that runs, or ran last. */
function indexIn({ mind }: Node, generation: number): number {
  const running = mind?.running?.assignment;
  if (running?.generation === generation) return running.worker;
  return mind?.holdings.find((held) => held.generation === generation)?.worker ?? 0;
}

function demandContent(node: Node, generation: number, step: number, does: string): void {
  const content = node.contents.find((c) => c.generation === generation);
  demand(
    content?.steps === step,
    `a worker ${does} step ${step} of generation ${generation} with ${content?.steps ?? "no"} updates in its shards`,
  );
}

/** What the coordinator needs to be told of a step: zeros, of the right shape. Worker 0 tells all norms. */
function reportOf({ spec }: World, { mind }: Node): Omit<Prepared, "generation" | "step"> {
  const { worker = 0, workers = 1 } = mind?.running?.assignment ?? {};
  const zeros = { total: 0, dinoLocal: 0, dinoGlobal: 0, koleo: 0, ibot: 0, gram: 0 };
  const { start, end } = ranksOf(spec.logicalRanks, worker, workers);
  return {
    finite: true,
    losses: Array.from({ length: end - start }, (_, i) => ({ rank: start + i, ...zeros })),
    monitors: [],
    normRoots: worker === 0 ? zeroNorms(spec) : [],
    seconds: {},
    exchangeBytes: 0,
    peakGatheredBytes: 0,
    stateBytes: 0,
    images: 0,
    offenders: [],
    eventLoopP99Ms: 0,
    badImages: 0,
    deviceAllocatedBytes: 0,
    devicePeakBytes: 0,
    deviceReservedBytes: 0,
  };
}

const norms = new Map<RunSpec, NormSum[]>();

function zeroNorms(spec: RunSpec): NormSum[] {
  const known = norms.get(spec);
  if (known) return known;
  const { normGroups } = layoutOf(spec);
  const all = normGroups.flatMap((group) => nodesOf(group, 0, new Float64Array(group.end)));
  norms.set(spec, all);
  return all;
}

export function withNode(world: World, index: number, patch: Partial<Node>): World {
  const node = { ...(world.nodes[index] as Node), ...patch };
  return { ...world, nodes: world.nodes.with(index, node) };
}
