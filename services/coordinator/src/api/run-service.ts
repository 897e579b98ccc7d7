/** The users' side of the API: look at the run, steer it. */
import { PaddockError } from "@paddock/contract";
import { type Run, type RunRequest, RunService } from "@paddock/proto";
import { type ServedService, serve } from "@paddock/service-kit";
import type { RunEvent } from "../run/event.js";

/** The run behind the API, if there is one yet. */
export interface RunControl {
  view(): Run | undefined;
  hasEnded(): boolean;
  logicalRanks(): number;
  post(event: RunEvent): Promise<void>;
  /** Starts a run; `already-exists` when there is one. */
  submit(spec: unknown): Promise<void>;
  /** Resolves at the next change of the run, or when the signal fires. */
  changed(signal: AbortSignal): Promise<void>;
}

export function runService(control: RunControl): ServedService {
  function find({ runId }: Pick<RunRequest, "runId">): Run {
    const run = control.view();
    if (run && (runId === "" || runId === run.runId)) return run;
    const expected = run ? `the run "${run.runId}"` : "a run to be submitted first";
    throw new PaddockError(
      "not-found",
      `expected ${expected}, received ${JSON.stringify(runId.slice(0, 80))}; an empty id means the active run`,
    );
  }

  async function steer(request: Pick<RunRequest, "runId">, event: RunEvent): Promise<Run> {
    const { runId } = find(request);
    if (control.hasEnded()) {
      throw new PaddockError(
        "invalid-argument",
        `expected a run that is still going, but ${runId} has ended; start it again with --resume`,
      );
    }
    await control.post(event);
    return find({ runId });
  }

  return serve(RunService, {
    async submit({ specJson }) {
      await control.submit(parseJson(specJson));
      return find({ runId: "" });
    },
    get: async (request) => find(request),
    async list() {
      const run = control.view();
      return { runs: run ? [run] : [] };
    },
    async *watch(request, { signal }) {
      while (!signal.aborted) {
        const isLast = control.hasEnded();
        const changed = control.changed(signal);
        yield find(request);
        if (isLast) return;
        await changed;
      }
    },
    pause: (request) => steer(request, { kind: "pause" }),
    resume: (request) => steer(request, { kind: "resume" }),
    async scale({ runId, workers }) {
      const run = find({ runId });
      if (workers < 1 || workers > control.logicalRanks()) {
        throw new PaddockError(
          "invalid-argument",
          `expected 1 to ${control.logicalRanks()} workers (logicalRanks of ${run.runId}), received ${workers}`,
        );
      }
      return steer({ runId }, { kind: "scale", workers });
    },
    cancel: (request) => steer(request, { kind: "drain", reason: "cancelled" }),
    checkpointNow: (request) => steer(request, { kind: "checkpoint-now" }),
  });
}

/** A spec of a hundred stages is far below. */
const maxSpecCharacters = 2 ** 20;

function parseJson(text: string): unknown {
  if (text.length > maxSpecCharacters) {
    throw new PaddockError(
      "invalid-spec",
      `expected a spec of at most ${maxSpecCharacters} characters, received ${text.length}`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw notJson(error);
  }
}

function notJson(cause: unknown): PaddockError {
  return new PaddockError("invalid-spec", `expected JSON, received: ${String(cause)}`, { cause });
}
