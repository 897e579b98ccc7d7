/** Runs `decide`: events one after the other, effects in their order. The only place where the run's state changes. */

import { performance } from "node:perf_hooks";
import { PaddockError } from "@paddock/contract";
import { type CoordinatorMessage, DecisionKind } from "@paddock/proto";
import { type FailpointName, type Logger, openTrace } from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";
import type { DiskFull } from "../api/diagnosis.js";
import type { Sessions } from "../api/sessions.js";
import type { Ledger } from "../ledger/ledger.js";
import { decide } from "../run/decide.js";
import type { DurableState, RunRecord } from "../run/durable.js";
import type { Effect, RunEvent } from "../run/event.js";
import { initialState, type Outcome, type RunState } from "../run/state.js";
import { traced } from "../run/traced.js";
import type { Checkpoints } from "../run-dir/checkpoints.js";
import type { StepsFile } from "../run-dir/steps-file.js";
import type { SegmentQueues } from "../segments/segment-queues.js";
import { patientDisk } from "./patient-disk.js";

/** Unix milliseconds that never go back: leases must not end because somebody sets the clock. */
export function unixNow(): number {
  return performance.timeOrigin + performance.now();
}

export interface RunnerParts {
  readonly ledger: Ledger;
  readonly steps: StepsFile;
  readonly checkpoints: Checkpoints;
  readonly segments: Pick<SegmentQueues, "want">;
  readonly sessions: Pick<Sessions, "send" | "dismiss">;
  readonly log: Logger;
  /** Unix milliseconds, never going back. */
  readonly now: () => number;
  /** Called after every event that changed the state, and when the disk gets full or has room again. */
  readonly onChange: () => void;
  /** Between two tries to write to a full disk. Default 1,000. */
  readonly diskRetryMs?: number;
}

export interface Runner {
  readonly state: RunState;
  /** While the run waits for room on its disk. */
  readonly diskFull: DiskFull | null;
  /** Resolves when the event and its effects have been dealt with. Never rejects. */
  post(event: RunEvent): Promise<void>;
  /** Deals with what was posted so far and ignores what comes after it. */
  stop(): Promise<void>;
  /** Resolves when the run has ended. */
  readonly ended: Promise<Outcome>;
}

export function createRunner(durable: DurableState, parts: RunnerParts): Runner {
  const { ledger, steps, checkpoints, segments, sessions, log, now } = parts;
  const startMs = now();
  let state = initialState(durable, startMs);
  const trace = openTrace("coordinator", { durable, now: startMs }, traced({ state, effects: [] }));
  let last = Promise.resolve();
  let isStopped = false;
  const { onChange, diskRetryMs = 1_000 } = parts;
  const disk = patientDisk({ log, now, onChange, retryMs: diskRetryMs });
  /** Time that the event at hand has spent waiting for room on the disk. */
  let waitedMs = 0;
  let resolveEnded = (_outcome: Outcome): void => undefined;
  const ended = new Promise<Outcome>((resolve) => {
    resolveEnded = resolve;
  });

  async function handle(event: RunEvent): Promise<void> {
    const before = state;
    try {
      await step(event);
      // Meanwhile nobody was heard.
      if (waitedMs > 0) await step({ kind: "stood-still", ms: waitedMs });
    } catch (error) {
      const { code, message } = PaddockError.from(error);
      log.error({ code, err: error, event: event.kind }, message);
      // Failing appends nothing and writes no file: it works on a full disk too.
      if (state.outcome === null) await step({ kind: "broken", code, reason: message });
    }
    waitedMs = 0;
    if (state !== before) onChange();
  }

  async function step(event: RunEvent): Promise<void> {
    const at = now();
    const decided = decide(state, event, at);
    trace?.note(event, traced(decided), at);
    state = decided.state;
    for (const effect of decided.effects) await carryOut(effect);
  }

  function post(event: RunEvent): Promise<void> {
    if (!isStopped) last = last.then(() => handle(event));
    return last;
  }

  function stop(): Promise<void> {
    isStopped = true;
    disk.giveUp();
    return last;
  }

  async function carryOut(effect: Effect): Promise<void> {
    switch (effect.kind) {
      case "append":
        return await append(effect.record);
      case "send":
        return await send(effect);
      case "dismiss":
        return sessions.dismiss(effect.id, effect.code, effect.reason);
      case "write-step":
        waitedMs += await disk.write(() => steps.write(effect.record));
        return await failpoint("coordinator.step.written");
      case "truncate-steps":
        return await truncateSteps(effect.step);
      case "sync-steps":
        waitedMs += await disk.write(() => steps.sync());
        return;
      case "write-manifest":
        return void commitCheckpoint(effect);
      case "keep-checkpoints":
        return await keepCheckpoints(effect.steps);
      case "segments":
        return segments.want(effect.generation, effect.workers, effect.segments);
      case "log":
        return log[effect.level](effect.fields, effect.event);
      case "end":
        return resolveEnded(effect.outcome);
    }
  }

  async function append(record: RunRecord): Promise<void> {
    const points = appendPoints[record.kind];
    if (points.before) await failpoint(points.before);
    waitedMs += await disk.write(() => ledger.append(record));
    if (points.after) await failpoint(points.after);
  }

  async function send({ id, message }: Extract<Effect, { kind: "send" }>): Promise<void> {
    const point = sendPointOf(message);
    if (point) await failpoint(point, { again: () => sessions.send(id, message) });
    sessions.send(id, message);
  }

  async function truncateSteps(step: number): Promise<void> {
    const kept = await steps.truncate(step);
    if (kept !== step) log.warn({ expected: step, kept }, "steps.jsonl lacks committed steps");
  }

  /** What cannot be deleted costs space and nothing else. */
  async function keepCheckpoints(kept: readonly number[]): Promise<void> {
    await checkpoints
      .keep(kept)
      .catch((error: Error) => log.warn({ error: error.message }, "old checkpoints stay"));
  }

  /** In the background: the next step need not wait for the disk. */
  async function commitCheckpoint({
    manifest,
  }: Extract<Effect, { kind: "write-manifest" }>): Promise<void> {
    const { generation, step } = manifest;
    try {
      const sha256 = await checkpoints.commit(manifest);
      await failpoint("coordinator.manifest.renamed");
      await post({ kind: "manifest-written", generation, step, sha256 });
    } catch (error) {
      const { code, message: reason } = PaddockError.from(error);
      await post({ kind: "manifest-failed", generation, step, code, reason });
    }
  }

  return {
    get state() {
      return state;
    },
    get diskFull() {
      return disk.full;
    },
    post,
    stop,
    ended,
  };
}

/** Failpoints around the append of a record. */
const appendPoints: Readonly<
  Record<RunRecord["kind"], { readonly before?: FailpointName; readonly after?: FailpointName }>
> = {
  run: {},
  generation: {
    before: "coordinator.generation.appending",
    after: "coordinator.generation.appended",
  },
  commit: { before: "coordinator.commit.appending", after: "coordinator.commit.appended" },
  checkpoint: { after: "coordinator.checkpoint.appended" },
  alert: {},
  guard: {},
  rollback: {},
  evaluation: {},
  finished: {},
};

function sendPointOf(message: CoordinatorMessage): FailpointName | undefined {
  if (message.kind === "assignment") return "coordinator.assignment.sending";
  if (message.kind !== "decision") return undefined;
  const isAbort = message.decision.kind === DecisionKind.DECISION_KIND_ABORT;
  return isAbort ? "coordinator.abort.sending" : "coordinator.decision.sending";
}
