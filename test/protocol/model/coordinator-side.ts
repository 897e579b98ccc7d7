/** The coordinator's process: carries out what `decide` asks for, may die between any two effects, and begins again from the ledger. */
import type { Effect, RunEvent, RunRecord } from "@paddock/coordinator";
import type { CoordinatorMessage, Hello, WorkerMessage } from "@paddock/proto";
import { checkMessage, checkRecord, checkStale } from "./invariants.js";
import { breakSession } from "./worker-side.js";
import { type Context, type Draft, expectThat, sessionOf, setSession } from "./world.js";

/** One event and its effects, of which only so many are carried out before a crash. Returns the effects. */
export function coordinatorEvent(
  context: Context,
  draft: Draft,
  event: RunEvent,
  effectsBeforeCrash = Number.POSITIVE_INFINITY,
): readonly Effect[] {
  const { coordinator } = draft;
  if (!coordinator) return [];
  const { state, effects } = context.subject.decide(coordinator, event, draft.now);
  checkStale(coordinator, event, state, effects);
  draft.coordinator = state;
  for (const effect of effects.slice(0, effectsBeforeCrash)) carryOut(context, draft, effect);
  if (effects.length > effectsBeforeCrash) crashCoordinator(draft);
  return effects;
}

function carryOut(context: Context, draft: Draft, effect: Effect): void {
  switch (effect.kind) {
    case "append":
      append(context, draft, effect.record);
      break;
    case "send":
      sendToWorker(context, draft, effect.id, effect.message);
      break;
    case "dismiss":
      breakSession(draft, effect.id, {
        kind: "closed",
        code: effect.code === "lease-lost" ? "lease-lost" : "worker-lost",
      });
      break;
    case "write-manifest":
      expectThat(
        effect.manifest.files.length === effect.manifest.workers,
        () => `manifest of step ${effect.manifest.step} lacks files`,
      );
      draft.manifests = [...draft.manifests, effect.manifest];
      break;
    case "segments":
      draft.jobs = { generation: effect.generation, segments: effect.segments };
      break;
    case "end":
      expectThat(
        effect.outcome.kind !== "failed",
        () => `the run failed: ${"reason" in effect.outcome ? effect.outcome.reason : ""}`,
      );
      break;
    default: // files for people, and logs
      break;
  }
}

function append(context: Context, draft: Draft, record: RunRecord): void {
  checkRecord(context, draft, record);
  draft.ledger = context.subject.foldRecord(draft.ledger, record);
}

function sendToWorker(
  context: Context,
  draft: Draft,
  id: number,
  message: CoordinatorMessage,
): void {
  checkMessage(context, draft, message);
  const session = sessionOf(draft, id);
  if (!session?.coordinatorSide || session.end) return;
  setSession(draft, id, { toWorker: [...session.toWorker, message] });
}

export function crashCoordinator(draft: Draft): void {
  draft.coordinator = null;
  draft.manifests = [];
  for (const { id } of draft.sessions) {
    breakSession(draft, id, { kind: "cut", code: "worker-lost" });
    setSession(draft, id, { coordinatorSide: false, joined: false, toCoordinator: [] });
  }
}

/** The coordinator reads the next message of a session. */
export function deliver(
  context: Context,
  draft: Draft,
  id: number,
  effectsBeforeCrash?: number,
): readonly Effect[] {
  const session = sessionOf(draft, id);
  const [message, ...toCoordinator] = session?.toCoordinator ?? [];
  if (!session || !message) return [];
  setSession(draft, id, { toCoordinator });
  if (message.kind === "hello") {
    return join(context, draft, id, message.hello, effectsBeforeCrash);
  }
  const event = eventOf(id, message);
  return event ? coordinatorEvent(context, draft, event, effectsBeforeCrash) : [];
}

function join(
  context: Context,
  draft: Draft,
  id: number,
  hello: Hello,
  effectsBeforeCrash?: number,
): readonly Effect[] {
  const { workerName: name, host, pid, engine, device, peerAddress, holding } = hello;
  if (draft.sessions.some((session) => session.joined && session.name === name)) {
    breakSession(draft, id, { kind: "closed", code: "already-exists" });
    setSession(draft, id, { coordinatorSide: false, toCoordinator: [] });
    return [];
  }
  const session = sessionOf(draft, id);
  const welcome: CoordinatorMessage = { kind: "welcome", welcome: context.welcome };
  const toWorker = session?.end ? session.toWorker : [...(session?.toWorker ?? []), welcome];
  setSession(draft, id, { joined: true, toWorker });
  const worker = { id, name, host, pid, engine, device, peerAddress, holding };
  return coordinatorEvent(context, draft, { kind: "joined", worker }, effectsBeforeCrash);
}

/** The coordinator sees the end of a session. */
export function seeGone(
  context: Context,
  draft: Draft,
  id: number,
  effectsBeforeCrash?: number,
): readonly Effect[] {
  const session = sessionOf(draft, id);
  if (!session) return [];
  setSession(draft, id, { coordinatorSide: false, joined: false, toCoordinator: [] });
  if (!session.joined) return [];
  const event: RunEvent = { kind: "gone", id, reason: "the connection ended" };
  return coordinatorEvent(context, draft, event, effectsBeforeCrash);
}

/** As services/coordinator/src/api/sessions.ts makes them. */
function eventOf(id: number, message: WorkerMessage): RunEvent | undefined {
  switch (message.kind) {
    case "prepared":
      return { kind: "prepared", id, prepared: message.prepared };
    case "checkpointWritten":
      return { kind: "checkpoint-written", id, written: message.checkpointWritten };
    case "evaluationDone":
      return { kind: "evaluation-done", id, evaluation: message.evaluationDone };
    case "goodbye":
      return { kind: "gone", id, reason: message.goodbye.reason };
    case "failed":
      return { kind: "failed", id, failure: message.failed };
    default:
      return undefined;
  }
}
