/** `--replay <folder>`: traces of real runs, written with PADDOCK_TRACE, given to the pure machines again. */
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { CoordinatorReplay } from "./replay-coordinator.js";
import { replayTrace } from "./replay-trace.js";
import { WorkerReplay } from "./replay-worker.js";
import { checkRun } from "./run-rules.js";

interface Row {
  readonly name: string;
  /** Empty: a worker that was never welcomed. */
  readonly runId: string;
  readonly events: number;
  readonly steps: number;
  readonly violations: readonly string[];
  readonly replayer: CoordinatorReplay | WorkerReplay;
}

export interface ReplayReport {
  readonly rows: readonly Omit<Row, "replayer">[];
  /** Of single processes, then of runs; empty: all is as it was and as it must be. */
  readonly violations: readonly string[];
}

/** @throws RangeError if there is no trace in the folder */
export async function replayFolder(folder: string): Promise<ReplayReport> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".jsonl")).sort();
  if (names.length === 0) throw new RangeError(`${folder}: expected traces, received none`);
  const rows: Row[] = [];
  for (const name of names) rows.push(await replayFile(join(folder, name)));
  const own = rows.flatMap(({ violations }) => violations);
  const shared = [...new Set(rows.map(({ runId }) => runId))]
    .filter((runId) => runId !== "")
    .flatMap((runId) => ofRun(rows, runId));
  // A trace that cannot be replayed to its end cannot be compared with others either.
  return { rows, violations: own.length > 0 ? own : shared };
}

function ofRun(rows: readonly Row[], runId: string): string[] {
  const replayers = rows.flatMap((row) => (row.runId === runId ? [row.replayer] : []));
  const broken = checkRun(
    replayers.filter((each) => each instanceof CoordinatorReplay),
    replayers.filter((each) => each instanceof WorkerReplay),
  );
  return broken.map((what) => `run ${runId}: ${what}`);
}

async function replayFile(path: string): Promise<Row> {
  const name = basename(path);
  const isWorker = name.startsWith("worker-");
  const replayed = await replayTrace<CoordinatorReplay | WorkerReplay>(path, (head) =>
    isWorker ? new WorkerReplay(head) : new CoordinatorReplay(head),
  );
  const { replayer, events, violations } = replayed;
  return { name, runId: replayer.runId, events, steps: replayer.steps, violations, replayer };
}

/** As a table, and what is broken below it. */
export function reportText({ rows, violations }: ReplayReport): string {
  const total = (of: (row: ReplayReport["rows"][number]) => number): number =>
    rows.reduce((sum, row) => sum + of(row), 0);
  const lines = rows.map(
    ({ name, runId, events, steps, violations: own }) =>
      `| ${name} | ${runId || "-"} | ${events} | ${steps} | ${own.length} |`,
  );
  const first = violations.slice(0, shown).map((what) => `BROKEN  ${what}`);
  const more = violations.length > shown ? [`and ${violations.length - shown} more`] : [];
  return [
    "| trace | run | events | steps | violations |",
    "|---|---|---|---|---|",
    ...lines,
    "",
    `${rows.length} processes, ${total(({ events }) => events)} events, ${violations.length} violations`,
    ...first,
    ...more,
    "",
  ].join("\n");
}

const shown = 20;
