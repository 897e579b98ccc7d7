/** What of a world decides what can happen next: worlds with the same fingerprint are explored once. */
import { createHash } from "node:crypto";
import type { RunState } from "@paddock/coordinator/protocol";
import type { Node, World } from "./world.js";

export function fingerprint(world: World): string {
  const text = JSON.stringify([
    world.durable.generation,
    world.durable.next,
    world.durable.committedBy,
    world.durable.checkpoints.map(({ step }) => step),
    world.durable.lastDecision?.step,
    world.durable.lastDecision?.generation,
    world.durable.finished,
    coordinatorOf(world),
    world.nodes.map(nodeOf),
    world.manifests,
    world.files.map(({ generation, step, worker }) => [generation, step, worker]).sort(),
    world.faults,
    [...world.computed].sort(),
    world.rollbacks > 0,
    world.excuses > 0,
  ]);
  return createHash("md5").update(text).digest("base64");
}

function coordinatorOf({ coordinator, nodes, nowMs }: World): unknown {
  if (!coordinator) return null;
  const place = (id: number): number => nodes.findIndex(({ session }) => session === id);
  const { workers, active, waiting, orphans, draining, outcome, barren, wanted } = coordinator;
  return [
    workers.map(({ id, owesHeld, leaving, holdings }) => [place(id), owesHeld, leaving, holdings]),
    active && activeOf(active, place),
    [waiting.notBeforeMs > nowMs, waiting.fewerFromMs > nowMs, waiting.fewerHoldersFromMs > nowMs],
    orphans.map(({ generation, step }) => [generation, step]),
    draining,
    outcome,
    barren,
    wanted,
  ];
}

function activeOf(active: NonNullable<RunState["active"]>, place: (id: number) => number): unknown {
  return [
    active.generation,
    active.members.map(place),
    active.startStep,
    active.prepared.map((prepared) => prepared !== null),
    active.pendingCheckpoints.map(({ step, files, complete }) => [
      step,
      files.map((file) => file !== null),
      complete,
    ]),
    active.regroupAt,
    active.stopping,
    active.commits > 0,
  ];
}

function nodeOf(node: Node): unknown {
  const { mind } = node;
  return [
    mind && [
      mind.connection,
      mind.running && { ...mind.running, assignment: assignmentOf(mind.running.assignment) },
      mind.newest,
      mind.holdings,
      mind.catchingUp?.step,
      mind.next && assignmentOf(mind.next),
      mind.leaving,
      mind.ended,
    ],
    node.isGone,
    node.session !== 0,
    node.isOpen,
    node.wantsStream,
    node.toCoordinator.map(messageOf),
    node.toWorker.map(messageOf),
    node.lostHere,
    node.lostThere,
    node.activities.map(activityOf),
    node.contents,
  ];
}

function assignmentOf(assignment: object): unknown {
  return { ...assignment, peers: undefined, segmentQueue: undefined };
}

/** Without what no mind looks at. */
function messageOf(message: { readonly kind?: string | undefined }): unknown {
  const body = (message as Record<string, unknown>)[message.kind ?? ""] as Record<string, unknown>;
  if (message.kind === "prepared") return ["prepared", body["generation"], body["step"]];
  if (message.kind === "welcome" || message.kind === "end") return message.kind;
  if (message.kind === "assignment") return assignmentOf(body);
  return [message.kind, body];
}

function activityOf(activity: Node["activities"][number]): unknown {
  return activity.kind === "load" ? ["load", assignmentOf(activity.assignment)] : activity;
}
