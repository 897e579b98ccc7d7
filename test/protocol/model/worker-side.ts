/** A worker's process: carries out what `decideWorker` asks for, and checks that what it asks for makes sense. */
import type { CoordinatorMessage, WorkerMessage } from "@paddock/proto";
import type { WorkerEffect, WorkerEvent } from "@paddock/worker";
import { holdsPrefix, loadedFrom } from "./live-load.js";
import { reportOf } from "./report.js";
import {
  type Context,
  type Draft,
  expectThat,
  type Memory,
  type ModelWorker,
  type SessionEnd,
  sessionOf,
  setSession,
  setWorker,
  type Task,
  workerAt,
} from "./world.js";

/** One event of one worker, and its effects. */
export function workerEvent(
  context: Context,
  draft: Draft,
  index: number,
  event: WorkerEvent,
): void {
  const before = workerAt(draft, index);
  const { state, effects } = context.subject.decideWorker(before.state, event);
  if (isStale(before, event)) {
    expectThat(
      effects.length === 0 && state === before.state,
      () => `stale: ${event.kind} of another generation had an effect in w${index}`,
    );
  }
  setWorker(draft, index, { state });
  for (const effect of effects) carryOut(context, draft, index, effect);
}

/** About a generation that is not the newest of this worker. */
function isStale({ state }: ModelWorker, event: WorkerEvent): boolean {
  const newest = Math.max(state.generation, state.next?.generation ?? 0);
  if (event.kind === "message") {
    const { message } = event;
    if (message.kind === "decision") {
      const isHeld = state.current?.assignment.generation === message.decision.generation;
      return message.decision.generation < newest && !isHeld;
    }
    return message.kind === "assignment" && message.assignment.generation <= newest;
  }
  return "generation" in event && event.generation < state.generation && event.generation !== 0;
}

function carryOut(context: Context, draft: Draft, index: number, effect: WorkerEffect): void {
  switch (effect.kind) {
    case "connect":
      setWorker(draft, index, { wantsConnection: true });
      break;
    case "send":
      sendToCoordinator(draft, index, effect.message);
      break;
    case "load":
      startLoad(draft, index, effect.assignment);
      break;
    case "compute":
      startCompute(context, draft, index, effect);
      break;
    case "evaluate":
      startTask(draft, index, { ...effect, kind: "evaluate" });
      break;
    case "apply":
      startApply(draft, index, effect.decision);
      break;
    case "checkpoint":
      writeFile(context, draft, index, effect);
      break;
    case "interrupt":
      setWorker(draft, index, { interrupting: effect.generation });
      break;
    case "forget":
      forget(draft, index, effect.generation);
      break;
    case "end":
      endProcess(draft, index);
      break;
    case "die":
      expectThat(false, () => `w${index} died: ${effect.code}: ${effect.message}`);
      break;
    case "serve":
    case "segment-done":
    case "pictures":
      break;
  }
}

/** What is sent over a stream that has ended vanishes. */
function sendToCoordinator(draft: Draft, index: number, message: WorkerMessage): void {
  const { session: id, memories } = workerAt(draft, index);
  const session = sessionOf(draft, id);
  if (message.kind === "prepared") {
    const { generation, step } = message.prepared;
    const memory = memories.find((one) => one.generation === generation);
    expectThat(
      holdsPrefix(memory, step),
      () => `updates: w${index} prepared step ${step} with ${memory?.history}`,
    );
  }
  if (!session?.workerSide || session.end) return;
  setSession(draft, session.id, { toCoordinator: [...session.toCoordinator, message] });
}

function startTask(draft: Draft, index: number, task: Task): void {
  const { task: running } = workerAt(draft, index);
  expectThat(running === null, () => `two at once: w${index} ${running?.kind} and ${task.kind}`);
  setWorker(draft, index, { task });
}

function startLoad(
  draft: Draft,
  index: number,
  assignment: Extract<Task, { kind: "load" }>["assignment"],
): void {
  startTask(draft, index, { kind: "load", generation: assignment.generation, assignment });
}

function startCompute(
  { bounds }: Context,
  draft: Draft,
  index: number,
  { generation, step }: { readonly generation: number; readonly step: number },
): void {
  expectThat(step < bounds.spec.steps, () => `w${index} computes step ${step} after the last one`);
  startTask(draft, index, { kind: "compute", generation, step });
  setWorker(draft, index, { begun: { generation, step } });
}

function startApply(
  draft: Draft,
  index: number,
  decision: Extract<Task, { kind: "apply" }>["decision"],
): void {
  const { generation, step } = decision;
  const memory = memoryOf(workerAt(draft, index), generation);
  expectThat(
    memory?.gradient === step,
    () => `w${index} applies step ${step} with the gradient of ${memory?.gradient ?? "nothing"}`,
  );
  startTask(draft, index, { kind: "apply", generation, step, decision });
}

function writeFile(
  _context: Context,
  draft: Draft,
  index: number,
  { generation, step }: { readonly generation: number; readonly step: number },
): void {
  const worker = workerAt(draft, index);
  const memory = memoryOf(worker, generation);
  expectThat(
    holdsPrefix(memory, step),
    () => `checkpoint ${step} of w${index} has ${memory?.history ?? "nothing"}`,
  );
  setWorker(draft, index, { files: [...worker.files, { generation, step }] });
}

function forget(draft: Draft, index: number, generation: number): void {
  const worker = workerAt(draft, index);
  expectThat(
    worker.task?.generation !== generation || worker.interrupting !== null,
    () => `w${index} forgets generation ${generation}, in which it runs ${worker.task?.kind}`,
  );
  setWorker(draft, index, {
    memories: worker.memories.filter((memory) => memory.generation !== generation),
  });
}

export function memoryOf(worker: ModelWorker, generation: number): Memory | undefined {
  return worker.memories.find((memory) => memory.generation === generation);
}

/** The process is gone, and what it held with it. */
export function endProcess(draft: Draft, index: number): void {
  const worker = workerAt(draft, index);
  breakSession(draft, worker.session, { kind: "cut", code: "worker-lost" });
  if (worker.session !== null) setSession(draft, worker.session, { workerSide: false });
  setWorker(draft, index, {
    alive: false,
    paused: false,
    task: null,
    interrupting: null,
    wantsConnection: false,
    session: null,
    memories: [],
    files: [],
  });
}

/** Each side may still read what was under way, or see the end first. */
export function breakSession(draft: Draft, id: number | null, end: SessionEnd): void {
  const session = sessionOf(draft, id);
  if (session && session.end?.kind !== "cut") setSession(draft, session.id, { end });
}

/** The worker sees the end of its stream. */
export function loseSession(context: Context, draft: Draft, index: number): void {
  const { session: id } = workerAt(draft, index);
  const session = sessionOf(draft, id);
  if (!session) return;
  const code = session.end?.code ?? "worker-lost";
  setWorker(draft, index, { session: null });
  setSession(draft, session.id, { workerSide: false, toWorker: [] });
  workerEvent(context, draft, index, { kind: "disconnected", code, reason: code, awayMs: 0 });
}

export function receive(context: Context, draft: Draft, index: number): void {
  const session = sessionOf(draft, workerAt(draft, index).session);
  const [message, ...toWorker] = session?.toWorker ?? [];
  if (!session || !message) return;
  setSession(draft, session.id, { toWorker });
  workerEvent(context, draft, index, { kind: "message", message: message as CoordinatorMessage });
}

/** The task ends well. */
export function finishTask(context: Context, draft: Draft, index: number): void {
  const worker = workerAt(draft, index);
  const { task } = worker;
  if (!task) return;
  setWorker(draft, index, { task: null });
  const { generation } = task;
  switch (task.kind) {
    case "load":
      keep(draft, index, loadedFrom(context, draft, task.assignment));
      workerEvent(context, draft, index, { kind: "loaded", generation });
      break;
    case "compute":
      finishCompute(context, draft, index, task);
      break;
    case "apply":
      update(draft, index, task);
      workerEvent(context, draft, index, { kind: "applied", generation, step: task.step });
      break;
    case "evaluate":
      tellEvaluation(draft, index, task);
      workerEvent(context, draft, index, { kind: "evaluated", generation, step: task.step });
      break;
  }
}

function keep(draft: Draft, index: number, memory: Memory): void {
  const { memories } = workerAt(draft, index);
  const others = memories.filter(({ generation }) => generation !== memory.generation);
  setWorker(draft, index, { memories: [...others, memory] });
}

function finishCompute(
  { bounds, subject, welcome }: Context,
  draft: Draft,
  index: number,
  { generation, step }: { readonly generation: number; readonly step: number },
): void {
  const worker = workerAt(draft, index);
  const memory = memoryOf(worker, generation);
  if (memory) keep(draft, index, { ...memory, gradient: step });
  const assignment = worker.state.current?.assignment;
  const { layout } = draft.coordinator ?? subject.initialState(draft.ledger, draft.now);
  const report = reportOf(
    bounds.spec,
    layout,
    assignment?.worker ?? 0,
    assignment?.workers ?? memory?.workers ?? 1,
  );
  const context = { bounds, subject, welcome };
  workerEvent(context, draft, index, { kind: "prepared", generation, step, report });
}

function update(
  draft: Draft,
  index: number,
  { generation, step }: { readonly generation: number; readonly step: number },
): void {
  const memory = memoryOf(workerAt(draft, index), generation);
  expectThat(memory !== undefined, () => `w${index} applies step ${step} to nothing`);
  if (!memory) return;
  const history = [...memory.history, step];
  expectThat(
    holdsPrefix({ ...memory, history }, step + 1),
    () => `updates: w${index} applied step ${step} to ${memory.history}`,
  );
  keep(draft, index, { ...memory, history, gradient: null });
}

function tellEvaluation(
  draft: Draft,
  index: number,
  { generation, step }: { readonly generation: number; readonly step: number },
): void {
  const assignment = workerAt(draft, index).state.current?.assignment;
  if (assignment?.worker !== 0) return;
  const evaluationDone = { generation, step, knnAccuracy: 0, bank: 1, queries: 1, seconds: 0 };
  sendToCoordinator(draft, index, { kind: "evaluationDone", evaluationDone });
}

/** The task is given up, or had ended: nothing of the generation runs any more. */
export function rest(context: Context, draft: Draft, index: number): void {
  const { interrupting, memories } = workerAt(draft, index);
  if (interrupting === null) return;
  setWorker(draft, index, { task: null, interrupting: null, memories });
  workerEvent(context, draft, index, { kind: "rested", generation: interrupting });
}

/** The oldest file that is being written is on disk, or could not be written. */
export function finishFile(draft: Draft, index: number, isWritten: boolean): void {
  const worker = workerAt(draft, index);
  const [file, ...files] = worker.files;
  if (!file) return;
  setWorker(draft, index, { files });
  const { generation, step } = file;
  if (isWritten) {
    const checkpointWritten = { generation, step, file: "f", bytes: 1, sha256: "", worker: 0 };
    sendToCoordinator(draft, index, { kind: "checkpointWritten", checkpointWritten });
  } else {
    const checkpointFailed = { generation, step, code: "disk-unavailable", message: "full" };
    sendToCoordinator(draft, index, { kind: "checkpointFailed", checkpointFailed });
  }
}

/** @param task of which the worker says that it failed */
export function giveUp(context: Context, draft: Draft, index: number, task: Task): void {
  setWorker(draft, index, { task: null });
  const at = { generation: task.generation, step: 0 };
  const failure = { code: "exchange-timeout", message: "late" } as const;
  workerEvent(context, draft, index, { kind: "failed", ...at, ...failure });
}
