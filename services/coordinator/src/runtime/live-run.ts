/** One run from its first event to its summary: the runner with its clock, its files and its queues. */
import { join } from "node:path";
import type { ErrorCode } from "@paddock/contract";
import type { Run } from "@paddock/proto";
import { type Logger, withDeadline, writeDurably } from "@paddock/service-kit";
import type { Sessions } from "../api/sessions.js";
import { viewOf } from "../api/view.js";
import type { DurableState } from "../run/durable.js";
import type { Outcome } from "../run/state.js";
import { openCheckpoints } from "../run-dir/checkpoints.js";
import { checkpointRootOf, type OpenedRun } from "../run-dir/open-run.js";
import { openStepsFile } from "../run-dir/steps-file.js";
import { type Summary, summaryOf } from "../run-dir/summary.js";
import { openSegmentQueues, type SegmentQueues } from "../segments/segment-queues.js";
import { createRunner, type Runner, unixNow } from "./runner.js";

export interface CoordinatorResult {
  readonly kind: "finished" | "interrupted" | "failed";
  readonly reason?: string;
  readonly code?: ErrorCode;
  /** Also in summary.json; null when no run was ever submitted. */
  readonly summary: Summary | null;
}

export interface LiveRunParts {
  readonly opened: Pick<OpenedRun, "ledger">;
  /** Absolute. */
  readonly runDir: string;
  readonly redisUrl: string;
  readonly sessions: Sessions;
  readonly log: Logger;
  readonly onChange: () => void;
}

export interface LiveRun {
  readonly runner: Runner;
  readonly segments: SegmentQueues;
  view(): Run;
  /** Resolves when the run has ended and its workers have gone, or soon after. */
  readonly done: Promise<CoordinatorResult>;
  /** Stops where it is; `done` then says interrupted unless the run had ended. */
  close(): Promise<void>;
}

/** Leases are looked at so often that none ends noticeably late. */
const ticksPerLease = 20;
const slowestTickMs = 200;
const probeMs = 1_000;
const refreshMs = 5_000;
/** How long workers may take to leave after the end. */
const farewellMs = 5_000;

export async function startRun(durable: DurableState, parts: LiveRunParts): Promise<LiveRun> {
  const { opened, runDir, redisUrl, sessions, log } = parts;
  const startMs = unixNow();
  const steps = await openStepsFile(join(runDir, "steps.jsonl"));
  const segments = openSegmentQueues(durable.runId, redisUrl, log);
  const runner = createRunner(durable, {
    ledger: opened.ledger,
    checkpoints: openCheckpoints(checkpointRootOf(durable, runDir)),
    steps,
    segments,
    sessions,
    log,
    now: unixNow,
    onChange: parts.onChange,
  });
  // Queues of the generation that a crash may have left behind.
  segments.want(durable.generation, durable.workers, []);
  const stopTicking = tick(runner, segments, durable.spec.fleet.leaseSeconds * 1000);
  let cut = (_outcome: Outcome): void => undefined;
  const closed = new Promise<Outcome>((resolve) => {
    cut = resolve;
  });

  async function conclude(): Promise<CoordinatorResult> {
    const outcome = await Promise.race([runner.ended, closed]);
    stopTicking();
    const wallSeconds = (unixNow() - startMs) / 1000;
    const ends = await steps.ends().catch(() => undefined);
    const summary = summaryOf(runner.state, ends, wallSeconds);
    await writeDurably(join(runDir, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`).catch(
      (error: Error) => log.error({ error: error.message }, "no summary.json"),
    );
    parts.onChange();
    const farewell = { timeoutMs: farewellMs, what: "workers to leave", code: "internal" } as const;
    await withDeadline(farewell, () => Promise.race([sessions.empty(), closed])).catch(() =>
      log.warn("workers did not leave after the end"),
    );
    return { ...outcome, summary };
  }

  const done = conclude();
  return {
    runner,
    segments,
    view: () =>
      viewOf(runner.state, unixNow(), {
        redisAwaySinceMs: segments.awaySinceMs,
        diskFull: runner.diskFull,
      }),
    done,
    async close() {
      await runner.stop();
      cut({ kind: "interrupted", reason: "closed" });
      await done;
      await segments.close();
      await steps.close();
    },
  };
}

/** Returns the function that stops it. */
function tick(runner: Runner, segments: SegmentQueues, leaseMs: number): () => void {
  let isBusy = false;
  let lastMs = unixNow();
  const tickMs = Math.min(slowestTickMs, Math.ceil(leaseMs / ticksPerLease));
  const probing = setInterval(() => segments.probe(), probeMs);
  const refreshing = setInterval(() => segments.refresh(), refreshMs);
  const timer = setInterval(() => {
    const stillMs = unixNow() - lastMs - tickMs;
    lastMs = unixNow();
    if (stillMs > leaseMs / 4) void runner.post({ kind: "stood-still", ms: stillMs });
    if (isBusy) return;
    isBusy = true;
    void runner.post({ kind: "tick" }).then(() => {
      isBusy = false;
    });
  }, tickMs);
  return () => {
    for (const each of [timer, probing, refreshing]) clearInterval(each);
  };
}
