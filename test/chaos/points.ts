/** What can be done at each failpoint, and how a running fleet is brought to pass it. */
import type { Rng } from "@paddock/contract";
import { type FailpointName, failpoints, type PointFacts } from "@paddock/service-kit";
import { type Fleet, freezeMs, type WorkerSlot } from "./fleet.js";
import type { Role } from "./role.js";

export const pointActions = [
  "kill",
  "freeze",
  "cut",
  "delay",
  "duplicate",
  "torn",
  "full",
  "corrupt",
  "redis-restart",
  "redis-flush",
] as const;
export type PointAction = (typeof pointActions)[number];

export interface PointFault {
  readonly point: FailpointName;
  readonly action: PointAction;
}

/** Shorter than the lease, longer than a step. */
const delayMs = 400;
/** Points at which Redis is restarted and emptied: one of each part of the protocol that could notice. */
const redisPoints: readonly FailpointName[] = [
  "worker.load.done",
  "worker.publish.done",
  "worker.segment.taken",
  "worker.gather.begun",
  "worker.bucket.sending",
  "worker.bucket.received",
  "worker.prepared.sent",
  "worker.checkpoint.half",
  "worker.evaluation.begun",
  "exchange.entered",
  "exchange.payload.written",
  "exchange.ticket.taken",
  "coordinator.generation.appended",
  "coordinator.commit.appended",
  "coordinator.segments.made",
];

export const pointNames = Object.keys(failpoints) as FailpointName[];

export function factsOf(name: FailpointName): PointFacts {
  return failpoints[name];
}

/** Whether the action has a meaning there. */
export function applies({ point, action }: PointFault): boolean {
  const { nature } = factsOf(point);
  switch (action) {
    case "duplicate":
      return nature === "message";
    case "torn":
      return point === "coordinator.ledger.appending";
    case "full":
      return nature === "write";
    case "corrupt":
      return nature === "bytes";
    case "redis-restart":
    case "redis-flush":
      return redisPoints.includes(point);
    case "kill":
    case "freeze":
    case "cut":
    case "delay":
      return true;
  }
}

/** Every fault of the matrix. */
export function allPointFaults(): PointFault[] {
  return pointNames
    .flatMap((point) => pointActions.map((action) => ({ point, action })))
    .filter(applies);
}

/** Arms a living process with the fault, and does what makes the fleet pass the point. Returns whom it armed. */
export async function armPoint(
  fleet: Fleet,
  { point, action }: PointFault,
  rng: Rng,
): Promise<Role | undefined> {
  const { role, at } = factsOf(point);
  const [first, second] = shuffled(fleet.living, rng);
  if (!first) return undefined;
  const worker = (await workerFor(fleet, point, second)) ?? first;
  const target = role === "coordinator" ? fleet.coordinator : worker.role;
  // Assignments are sent to one worker after the other: the second is one that finds half of them sent.
  const isPerWorker = at === "step" || point === "coordinator.assignment.sending";
  const passes = isPerWorker ? (at === "step" ? 2 : 1) * fleet.living.length : 1;
  const text = actionText(fleet, action, point, worker).replace("#", `@${1 + rng.below(passes)}`);
  target.arm(`${point}=${text}`);
  // Points of a step come by themselves. The others need somebody who ends: in order, so that the fault stays the only one, unless
  // the point is that of a loss.
  const victim = at === "start" || at === "leave" || role === "coordinator" ? first : second;
  if (at === "loss") (victim ?? first).role.signal("SIGKILL");
  if (at === "start" || at === "generation" || at === "leave") {
    (victim ?? first).role.signal("SIGTERM");
  }
  return target;
}

/** The worker that passes the point, where not any does: the one that evaluates; the one that stays when another one leaves. */
async function workerFor(
  fleet: Fleet,
  point: FailpointName,
  other: WorkerSlot | undefined,
): Promise<WorkerSlot | undefined> {
  if (factsOf(point).at === "evaluation") {
    const slot = await fleet.evaluator();
    return slot === undefined ? undefined : fleet.slots.get(slot);
  }
  return point === "peer.stream.begun" || point === "peer.chunk.sending" ? other : undefined;
}

/** With "#" where the pass is to be named. */
function actionText(
  fleet: Fleet,
  action: PointAction,
  point: FailpointName,
  worker: { readonly proxy: { readonly port: number } },
): string {
  switch (action) {
    case "freeze":
      return `freeze#:${freezeMs}`;
    case "redis-restart":
    case "redis-flush":
      return `freeze#:${action}`;
    case "delay":
      return `delay#:${delayMs}`;
    case "cut": {
      if (point.startsWith("exchange.")) return `cut#:${fleet.redis.port}`;
      const isWorker = factsOf(point).role === "worker";
      return `cut#:${isWorker ? worker.proxy.port : fleet.coordinatorPort}`;
    }
    case "kill":
    case "duplicate":
    case "torn":
    case "full":
    case "corrupt":
      return `${action}#`;
  }
}

function shuffled<T>(values: readonly T[], rng: Rng): T[] {
  return [...rng.permutation(values.length)].map((i) => values[i] as T);
}
