/** All that can happen next in a world: each with a name, for traces. */
import { owes, type RunEvent, type RunState } from "@paddock/coordinator/protocol";
import type { CoordinatorMessage } from "@paddock/proto";
import { carryOut, crashed, decideOn, eventOf, restarted } from "./coordinator-side.js";
import { finish, finishable, tellWorker, withNode } from "./worker-side.js";
import { idleNode, type Node, startedNode, type World } from "./world.js";

export interface Transition {
  readonly name: string;
  readonly take: () => World;
}

export function transitionsOf(world: World): Transition[] {
  const own = ordinary(world);
  // Time passes only when nothing else happens: timeouts are long against everything else. A pause is a fault.
  const all = own.length > 0 ? own : timeouts(world);
  return world.faults > 0 && !isOver(world) ? [...all, ...faults(world, own)] : all;
}

export function isOver({ coordinator }: World): boolean {
  return coordinator !== null && coordinator.outcome !== null;
}

function ordinary(world: World): Transition[] {
  const all: Transition[] = [];
  if (!world.coordinator)
    all.push({ name: "coordinator starts again", take: () => restarted(world) });
  world.nodes.forEach((node, index) => {
    all.push(...ofNode(world, node, index));
  });
  if (world.coordinator) {
    world.manifests.forEach((manifest, i) => {
      const event = { kind: "manifest-written", ...manifest, sha256: "h" } as const;
      const without = { ...world, manifests: world.manifests.toSpliced(i, 1) };
      all.push(posted(`manifest ${manifest.step}`, without, event));
    });
  }
  return all;
}

function ofNode(world: World, node: Node, index: number): Transition[] {
  const all: Transition[] = [];
  const name = `w${index}`;
  if (!node.mind && !node.isGone) {
    const take = () =>
      withNode(world, index, {
        ...startedNode(index),
        session: node.session,
        lostThere: node.lostThere,
      });
    if (node.session === 0) all.push({ name: `${name} is started again`, take });
  }
  if (node.lostHere) {
    const noticed = withNode(world, index, { isOpen: false, lostHere: false, toWorker: [] });
    const event = { kind: "disconnected", reason: "lost" } as const;
    all.push({ name: `${name} notices`, take: () => tellWorker(noticed, index, event) });
  }
  // Also when the stream is broken: what had arrived is read, or not.
  if (node.toWorker.length > 0) all.push(heard(world, node, index));
  const mayConnect = node.wantsStream && !node.isOpen && node.session === 0 && !node.lostThere;
  if (mayConnect && world.coordinator && node.mind) {
    const open = withNode(world, index, { isOpen: true, wantsStream: false, toWorker: [] });
    all.push({
      name: `${name} connects`,
      take: () => tellWorker(open, index, { kind: "connected" }),
    });
  }
  for (const activity of finishable(world, index)) {
    all.push({ name: `${name} ends ${activity.kind}`, take: () => finish(world, index, activity) });
  }
  if (world.coordinator) all.push(...atCoordinator(world, node, index));
  return all;
}

function heard(world: World, node: Node, index: number): Transition {
  const [message, ...rest] = node.toWorker;
  const taken = withNode(world, index, { toWorker: rest });
  if (message?.kind === "end") {
    const closed = withNode(taken, index, { isOpen: false, toWorker: [] });
    const event = { kind: "disconnected", reason: "dismissed" } as const;
    return { name: `w${index} reads the end`, take: () => tellWorker(closed, index, event) };
  }
  const event = { kind: "message", message: message as CoordinatorMessage } as const;
  return {
    name: `w${index} reads ${describe(message as CoordinatorMessage)}`,
    take: () => tellWorker(taken, index, event),
  };
}

function describe(message: CoordinatorMessage): string {
  if (message.kind === "decision") {
    const { generation, step, kind } = message.decision;
    return `decision ${generation}.${step} ${["?", "commit", "skip", "abort"][kind]}`;
  }
  if (message.kind !== "assignment") return message.kind ?? "?";
  const { generation, startStep, live } = message.assignment;
  return `assignment ${generation} at ${startStep}${live ? " live" : ""}`;
}

/** What of a worker's stream arrives at the coordinator. */
function atCoordinator(world: World, node: Node, index: number): Transition[] {
  if (node.lostThere) {
    const gone = withNode(world, index, { session: 0, lostThere: false, toCoordinator: [] });
    const { session } = node;
    if (session === 0) return [{ name: `w${index} is gone`, take: () => gone }];
    return [posted(`w${index} is gone`, gone, { kind: "gone", id: session, reason: "lost" })];
  }
  const [message, ...rest] = node.toCoordinator;
  if (!message) return [];
  const taken = withNode(world, index, { toCoordinator: rest });
  if (message.kind === "hello") return [welcomed(taken, index, message.hello.holdings)];
  const event = node.session === 0 ? undefined : eventOf(node.session, message);
  const name = `w${index} says ${message.kind}`;
  return [event ? posted(name, taken, event) : { name, take: () => taken }];
}

type Joined = Extract<RunEvent, { kind: "joined" }>;

function welcomed(world: World, index: number, holdings: Joined["worker"]["holdings"]): Transition {
  const id = world.lastSession + 1;
  const node = world.nodes[index] as Node;
  const welcome = { runId: "r", specJson: JSON.stringify({ steps: world.spec.steps }) };
  const message = {
    kind: "welcome",
    welcome: {
      ...welcome,
      version: null,
      leaseSeconds: 30,
      runDir: "",
      redisUrl: "",
      checkpointRoot: "",
    },
  } as const;
  const known = withNode({ ...world, lastSession: id }, index, {
    session: id,
    toWorker: [...node.toWorker, message],
  });
  const worker = { id, name: `w${index}`, host: "h", pid: 1, engine: "e", device: "d" };
  const joined = { ...worker, peerAddress: String(index), holdings };
  return posted(`w${index} says hello`, known, { kind: "joined", worker: joined });
}

function posted(name: string, world: World, event: RunEvent): Transition {
  return { name, take: () => carryOut(world, decideOn(world, event)) };
}

function timeouts(world: World): Transition[] {
  if (!world.coordinator || isOver(world)) return [];
  const later = { ...world, nowMs: world.nowMs + 100_000 };
  return [posted("time passes", withFreshLeases(later), { kind: "tick" })];
}

/** Nobody is late: who does nothing now waits for others. */
function withFreshLeases(world: World): World {
  const coordinator = world.coordinator as RunState;
  const workers = coordinator.workers.map((w) => ({ ...w, lastProgressMs: world.nowMs }));
  return { ...world, coordinator: { ...coordinator, workers } };
}

function faults(world: World, own: readonly Transition[]): Transition[] {
  const less = { ...world, faults: world.faults - 1 };
  const all: Transition[] = [];
  if (world.coordinator) {
    all.push({
      name: "coordinator dies",
      take: () => crashed(less),
    });
    all.push(...partialCrashes(world));
  }
  world.nodes.forEach((node, index) => {
    if (node.mind) all.push({ name: `w${index} dies`, take: () => killed(less, index) });
    if (node.isOpen && !node.lostHere) {
      all.push({ name: `w${index} is cut off`, take: () => cut(less, index) });
    }
    if (isOwing(world, node)) {
      const late = latest({ ...less, excuses: less.excuses + 1 }, node.session);
      all.push(posted(`w${index} is late`, late, { kind: "tick" }));
    }
  });
  return own.length > 0 || all.length > 0 ? all : [];
}

/** The coordinator dies between two effects of what it would do next. */
function partialCrashes(world: World): Transition[] {
  const all: Transition[] = [];
  const less = { ...world, faults: world.faults - 1 };
  less.nodes.forEach((node, index) => {
    const [message, ...rest] = node.toCoordinator;
    const event = message && node.session !== 0 ? eventOf(node.session, message) : undefined;
    if (!event || node.lostThere) return;
    const taken = withNode(less, index, { toCoordinator: rest });
    const decided = decideOn(taken, event);
    const appends = decided.effects.some(({ kind }) => kind === "append");
    if (!appends) return;
    decided.effects.forEach((effect, k) => {
      const isVisible = ["append", "send", "keep-checkpoints"].includes(effect.kind);
      if (k === 0 || !isVisible) return;
      const name = `coordinator dies before ${effect.kind} ${k} of w${index}'s ${message?.kind}`;
      all.push({ name, take: () => carryOut(taken, decided, k) });
    });
  });
  return all;
}

function isOwing({ coordinator }: World, { session }: Node): boolean {
  const worker = coordinator?.workers.find(({ id }) => id === session);
  if (!coordinator || !worker) return false;
  if (worker.owesHeld !== null) return true;
  const { active } = coordinator;
  const index = active?.members.indexOf(session) ?? -1;
  return active !== null && index >= 0 && owes(active, index);
}

/** Only this worker has made no progress for longer than its lease. */
function latest(world: World, session: number): World {
  const later = { ...world, nowMs: world.nowMs + 31_000 };
  const coordinator = world.coordinator as RunState;
  const workers = coordinator.workers.map((worker) => ({
    ...worker,
    lastProgressMs: worker.id === session ? world.nowMs : later.nowMs,
  }));
  return { ...later, coordinator: { ...coordinator, workers } };
}

function killed(world: World, index: number): World {
  const node = world.nodes[index] as Node;
  return withNode({ ...world, excuses: world.excuses + 1 }, index, {
    ...idleNode,
    session: node.session,
    lostThere: node.session !== 0,
  });
}

/** What the worker has sent and was not received is lost; each side notices in its own time. */
function cut(world: World, index: number): World {
  const node = world.nodes[index] as Node;
  return withNode(world, index, {
    toCoordinator: [],
    lostHere: true,
    lostThere: node.session !== 0,
  });
}
