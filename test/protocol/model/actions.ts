/** Everything that may happen next in a world. */
import type { Effect } from "@paddock/coordinator";
import {
  coordinatorEvent,
  deliver,
  seeGone,
} from "./coordinator-side.js";
import { faultActions } from "./faults.js";
import { isReadable } from "./live-load.js";
import {
  finishFile,
  finishTask,
  giveUp,
  loseSession,
  receive,
  rest,
  workerEvent,
} from "./worker-side.js";
import {
  type Context,
  type Draft,
  type ModelWorker,
  newWorker,
  type Session,
  sessionOf,
  setWorker,
  type Task,
  type World,
} from "./world.js";

export interface Action {
  readonly label: string;
  readonly isFault: boolean;
  /** Works out the next world; throws a Violation. Of the coordinator's effects, if it is one, returns all. */
  readonly run: (draft: Draft, effectsBeforeCrash?: number) => readonly Effect[] | undefined;
}

/** What happens by itself. Time is not in here: it passes only when nothing else does, or somebody is stuck. */
export function ownActions(context: Context, world: World): Action[] {
  return [
    ...world.workers.flatMap((worker) => workerActions(context, world, worker)),
    ...coordinatorActions(context, world),
  ];
}

export function allActions(context: Context, world: World): Action[] {
  return [...ownActions(context, world), ...faultActions(context, world)];
}

function workerActions(context: Context, world: World, worker: ModelWorker): Action[] {
  const { index, alive, paused } = worker;
  if (!alive) return respawns(context, world, worker);
  if (paused) return [step(`w${index} goes on`, (d) => setWorker(d, index, { paused: false }))];
  return [
    ...connectionActions(context, world, worker),
    ...taskActions(context, world, worker),
    ...jobActions(context, world, worker),
  ];
}

function respawns(context: Context, world: World, { index, incarnation }: ModelWorker): Action[] {
  const isOver = world.coordinator !== null && world.coordinator.outcome !== null;
  const isCrash = world.history.faults.includes("worker-crash");
  if (isOver || !isCrash || !context.bounds.respawn) return [];
  const fresh = newWorker(context, index, incarnation + 1);
  return [step(`w${index} starts anew`, (draft) => setWorker(draft, index, fresh))];
}

function connectionActions(context: Context, world: World, worker: ModelWorker): Action[] {
  const { index, session: id, wantsConnection } = worker;
  const session = sessionOf(world, id);
  if (!session) {
    if (!wantsConnection || !world.coordinator) return [];
    return [step(`w${index} connects`, (draft) => connect(context, draft, worker))];
  }
  const actions: Action[] = [];
  const [message] = session.toWorker;
  if (message) {
    const what = message.kind === "decision" ? `decision ${message.decision.kind}` : message.kind;
    actions.push(step(`w${index} reads ${what}`, (draft) => receive(context, draft, index)));
  }
  if (session.end && (session.end.kind === "cut" || !message)) {
    actions.push(step(`w${index} sees the end`, (draft) => loseSession(context, draft, index)));
  }
  return actions;
}

function connect(context: Context, draft: Draft, { index, state }: ModelWorker): void {
  const id = freeId(draft, index);
  const session: Session = {
    id,
    worker: index,
    name: state.facts.hello.workerName,
    toCoordinator: [],
    toWorker: [],
    end: null,
    workerSide: true,
    coordinatorSide: true,
    joined: false,
  };
  draft.sessions = [...draft.sessions, session].sort((a, b) => a.id - b.id);
  setWorker(draft, index, { session: id, wantsConnection: false });
  workerEvent(context, draft, index, { kind: "connected" });
}

/** Never one that is still known to anybody; else the smallest: worlds that behave alike shall look alike. */
function freeId({ sessions, coordinator }: World, index: number): number {
  const known = new Set([
    ...sessions.map(({ id }) => id),
    ...(coordinator?.workers ?? []).map(({ id }) => id),
    ...(coordinator?.active?.members ?? []),
  ]);
  let id = 1 + index;
  while (known.has(id)) id += 8;
  return id;
}

function taskActions(context: Context, world: World, worker: ModelWorker): Action[] {
  const { index, task, interrupting, files } = worker;
  const actions: Action[] = [];
  if (task && canFinish(context, world, worker, task)) {
    actions.push(step(`w${index} ends ${textOf(task)}`, (d) => finishTask(context, d, index)));
  }
  if (task && interrupting === null && isStuck(context, world, worker, task)) {
    actions.push(step(`w${index} gives up ${textOf(task)}`, (d) => giveUp(context, d, index, task)));
  }
  if (interrupting !== null && task?.kind !== "apply") {
    actions.push(step(`w${index} rests`, (draft) => rest(context, draft, index)));
  }
  if (files.length > 0) {
    actions.push(step(`w${index} wrote a file`, (draft) => finishFile(draft, index, true)));
  }
  return actions;
}

function textOf(task: Task): string {
  return `${task.kind} ${task.generation}:${"step" in task ? task.step : task.assignment.startStep}`;
}

function canFinish(context: Context, world: World, worker: ModelWorker, task: Task): boolean {
  switch (task.kind) {
    case "load":
      return worker.interrupting === null && isReadable(context, world, task.assignment);
    case "compute":
      return membersOf(worker).every((name) => hasBegun(world, name, task));
    case "apply":
      return true;
    case "evaluate":
      return worker.interrupting === null;
  }
}

/** By name: a new process at the same place is another worker. */
function membersOf({ state }: ModelWorker): readonly string[] {
  return state.current?.assignment.peers.map(({ workerName }) => workerName) ?? [];
}

/** Its part of the step lies in the exchange, or will. */
function hasBegun(
  { workers }: World,
  name: string,
  { generation, step }: Exclude<Task, { kind: "load" }>,
): boolean {
  return workers.some(
    ({ state, begun }) =>
      state.facts.hello.workerName === name &&
      begun?.generation === generation &&
      begun.step >= step,
  );
}

/** It waits for somebody who will not do his part any more: its deadline passes. */
function isStuck(context: Context, world: World, worker: ModelWorker, task: Task): boolean {
  if (task.kind === "load") return !isReadable(context, world, task.assignment);
  if (task.kind !== "compute") return false;
  return membersOf(worker).some((name) => !hasBegun(world, name, task) && !mayBegin(world, name, task));
}

/** It is in the generation, or has yet to read that it is. */
function mayBegin(world: World, name: string, { generation }: Task): boolean {
  const member = world.workers.find(({ state }) => state.facts.hello.workerName === name);
  if (!member?.alive || member.paused || member.interrupting !== null) return false;
  const { current, next } = member.state;
  if (next?.generation === generation) return true;
  if (current?.assignment.generation === generation) return current.mode === "running";
  const waiting = sessionOf(world, member.session)?.toWorker ?? [];
  return waiting.some(
    (message) => message.kind === "assignment" && message.assignment.generation === generation,
  );
}

/** Jobs come in any order, twice, or again; not coming is the same as coming later. */
function jobActions(context: Context, { jobs }: World, worker: ModelWorker): Action[] {
  const { index, state, task, interrupting, memories } = worker;
  const { current } = state;
  const isIdle = task === null && interrupting === null && current?.mode === "running";
  if (!jobs || !isIdle || current.prepared) return [];
  const { generation } = jobs;
  if (current.assignment.generation !== generation) return [];
  if (!memories.some((memory) => memory.generation === generation)) return [];
  return jobs.segments.map(({ start, end }) =>
    step(`w${index} takes job [${start}, ${end})`, (draft) =>
      workerEvent(context, draft, index, { kind: "segment", generation, start, end }),
    ),
  );
}

function coordinatorActions(context: Context, world: World): Action[] {
  const { coordinator, sessions, manifests } = world;
  if (!coordinator) {
    const restart = (draft: Draft): void => {
      draft.coordinator = context.subject.initialState(draft.ledger, draft.now);
    };
    return [step("the coordinator starts again", restart)];
  }
  const actions: Action[] = [];
  for (const { id, worker, coordinatorSide, end, toCoordinator } of sessions) {
    if (!coordinatorSide) continue;
    const [message] = toCoordinator;
    if (message) {
      const label = `coordinator reads ${message.kind} of w${worker}`;
      actions.push(decision(label, (d, crash) => deliver(context, d, id, crash)));
    }
    if (end) {
      const label = `coordinator sees the end of w${worker}`;
      actions.push(decision(label, (d, crash) => seeGone(context, d, id, crash)));
    }
  }
  for (const { generation, step: at } of manifests) {
    const event = { kind: "manifest-written", generation, step: at, sha256: `${at}` } as const;
    actions.push(
      decision(`manifest ${at} is durable`, (draft, crash) => {
        draft.manifests = draft.manifests.filter((one) => one.step !== at);
        return coordinatorEvent(context, draft, event, crash);
      }),
    );
  }
  return actions;
}

/**
 * A lease and more passes. Everybody who works, and is not stopped, has said so in the meantime.
 */
export function passTime(context: Context, draft: Draft): void {
  const leaseMs = context.bounds.spec.fleet.leaseSeconds * 1000;
  draft.now += leaseMs / 2 + 1;
  for (const session of draft.sessions) {
    const worker = draft.workers[session.worker];
    const current = worker?.state.current;
    if (!session.joined || session.end || !worker || worker.paused) continue;
    if (worker.session !== session.id || !current || worker.task === null) continue;
    const { generation } = current.assignment;
    const progress = { generation, step: current.step, phase: "any" };
    coordinatorEvent(context, draft, { kind: "progress", id: session.id, progress });
  }
  draft.now += leaseMs / 2 + 1;
  coordinatorEvent(context, draft, { kind: "tick" });
}

function step(label: string, run: (draft: Draft) => void): Action {
  return {
    label,
    isFault: false,
    run: (draft) => {
      run(draft);
      return undefined;
    },
  };
}

function decision(label: string, run: Action["run"]): Action {
  return { label, isFault: false, run };
}
