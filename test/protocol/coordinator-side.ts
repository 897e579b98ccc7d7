/** What happens in and around the coordinator. */
import {
  decide,
  type Effect,
  foldRecord,
  initialState,
  type RunEvent,
  type RunState,
} from "@paddock/coordinator/protocol";
import type { WorkerMessage } from "@paddock/proto";
import { demandAppendable, demandHolders, demandKept, demandSendable } from "./ledger-rules.js";
import { demand } from "./violation.js";
import { withNode } from "./worker-side.js";
import { type Node, streamEnd, type World } from "./world.js";

/** What `decide` makes of an event, before any effect is carried out. */
export interface Decided {
  readonly state: RunState;
  readonly effects: readonly Effect[];
}

export function decideOn(world: World, event: RunEvent): Decided {
  return decide(world.coordinator as RunState, event, world.nowMs);
}

/** @param count so many effects are carried out; then the process dies, if it is not all of them */
export function carryOut(world: World, { state, effects }: Decided, count = effects.length): World {
  let after: World = { ...world, coordinator: state };
  for (const effect of effects.slice(0, count)) after = carryOutOne(after, effect);
  return count < effects.length ? crashed(after) : after;
}

function carryOutOne(world: World, effect: Effect): World {
  switch (effect.kind) {
    case "append":
      return appended(world, effect.record);
    case "send": {
      demandSendable(world.durable, effect.message);
      demandHolders(world.coordinator?.workers ?? [], effect.message);
      const index = sessionIndex(world, effect.id);
      const node = world.nodes[index];
      if (!node || node.lostThere) return world;
      return withNode(world, index, { toWorker: [...node.toWorker, effect.message] });
    }
    case "dismiss": {
      const index = sessionIndex(world, effect.id);
      const node = world.nodes[index];
      return node ? withNode(world, index, dismissed(node)) : world;
    }
    case "write-manifest": {
      const { generation, step, workers } = effect.manifest;
      const files = world.files.filter((f) => f.generation === generation && f.step === step);
      demand(files.length === workers, `manifest of step ${step}: all ${workers} files are there`);
      return { ...world, manifests: [...world.manifests, { generation, step }] };
    }
    case "keep-checkpoints": {
      demandKept(world.durable, effect.steps);
      const writing = world.nodes.flatMap(({ activities }) =>
        activities.flatMap((a) => (a.kind === "write" ? [a.step] : [])),
      );
      const kept = [...effect.steps, ...writing];
      return { ...world, files: world.files.filter(({ step }) => kept.includes(step)) };
    }
    default:
      return world;
  }
}

/** The stream ends behind what was sent on it; from now on nothing that comes on it counts. */
function dismissed(node: Node): Partial<Node> {
  return { session: 0, toCoordinator: [], toWorker: [...node.toWorker, streamEnd] };
}

function appended(world: World, record: Extract<Effect, { kind: "append" }>["record"]): World {
  demandAppendable(world.durable, record);
  const isRollback = record.kind === "generation" && record.step < world.durable.next;
  if (record.kind === "checkpoint") {
    const isThere = world.files.some(({ step }) => step === record.step);
    demand(isThere, `the checkpoint of step ${record.step} is on disk when it is recorded`);
  }
  const rollbacks = world.rollbacks + (isRollback ? 1 : 0);
  return { ...world, rollbacks, durable: foldRecord(world.durable, record) };
}

/** The process dies: all streams break. */
export function crashed(world: World): World {
  return {
    ...world,
    coordinator: null,
    manifests: [],
    nodes: world.nodes.map((node) => ({
      ...node,
      session: 0,
      toCoordinator: [],
      lostThere: false,
      lostHere: node.isOpen,
    })),
  };
}

export function restarted(world: World): World {
  return { ...world, coordinator: initialState(world.durable, world.nowMs) };
}

function sessionIndex(world: World, id: number): number {
  return world.nodes.findIndex(({ session }) => session === id);
}

/** The event that a worker's message is, as the sessions make it. Hello is none: it makes a session. */
export function eventOf(id: number, message: WorkerMessage): RunEvent | undefined {
  switch (message.kind) {
    case "progress":
      return { kind: "progress", id, progress: message.progress };
    case "prepared":
      return { kind: "prepared", id, prepared: message.prepared };
    case "checkpointWritten":
      return { kind: "checkpoint-written", id, written: message.checkpointWritten };
    case "failed":
      return { kind: "failed", id, failure: message.failed };
    case "held":
      return { kind: "held", id, held: message.held };
    case "leave":
      return { kind: "leaving", id, reason: message.leave.reason };
    default:
      return undefined;
  }
}
