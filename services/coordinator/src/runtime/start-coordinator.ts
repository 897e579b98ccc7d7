/** The coordinator as a whole: puts the parts together, and takes them apart in order. */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PaddockError, parseRunSpec, type RunSpec } from "@paddock/contract";
import type { Run, Welcome } from "@paddock/proto";
import {
  checkBind,
  createMetrics,
  isLoopback,
  type Logger,
  refusalLog,
  startGrpcServer,
  startHttpServer,
} from "@paddock/service-kit";
import { type CoordinatorSecurity, openAdmission } from "../api/admission.js";
import { type RunControl, runService } from "../api/run-service.js";
import { createSessions } from "../api/sessions.js";
import { createRunMetrics } from "../metrics/run-metrics.js";
import type { DurableState } from "../run/durable.js";
import { initialState } from "../run/state.js";
import { checkpointRootOf, openRun, prepareCheckpoints, recordRun } from "../run-dir/open-run.js";
import { pinOrigins } from "../run-dir/origins.js";
import { type Summary, summaryOf } from "../run-dir/summary.js";
import { createChanges } from "./changes.js";
import { type CoordinatorResult, type LiveRun, startRun } from "./live-run.js";
import { unixNow } from "./runner.js";

export interface CoordinatorOptions {
  /** Created if needed; shared with the workers. */
  readonly runDir: string;
  /** Absent: that of the run in `runDir`; in an empty directory the coordinator waits for a submitted one. */
  readonly spec?: RunSpec;
  /** Go on with the run in `runDir`. */
  readonly resume: boolean;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Of /metrics, /healthz and /status. 0: any free port. */
  readonly metricsPort: number;
  /** Address of those pages; default loopback. Elsewhere they need TLS, unless a plain listener is allowed. */
  readonly metricsHost?: string | undefined;
  /** Absent: no TLS and no tokens, hence on this machine only. */
  readonly security?: CoordinatorSecurity | undefined;
  readonly redisUrl: string;
  readonly logger: Logger;
  /** Asks for a drain. */
  readonly signal: AbortSignal;
  /** Called after changes of the run, at most every 50 ms, and at the end. */
  readonly onUpdate?: (run: Run) => void;
}

export interface Coordinator {
  /** host:port of the gRPC API; empty for a run that had already finished: nothing is started for it. */
  readonly address: string;
  /** host:port of the HTTP pages; empty likewise. */
  readonly metricsAddress: string;
  /** Empty until a run is submitted. */
  readonly runId: string;
  /** Resolves when the run has ended and its workers have gone, or soon after. */
  readonly done: Promise<CoordinatorResult>;
  /** Finishes the step in progress, writes a checkpoint, ends. */
  drain(reason: string): void;
  /** Stops serving and gives up the run directory. Without a drain before, the run is cut off like by a crash. */
  close(): Promise<void>;
}

const updateMs = 50;
/** For answers that are on their way when the run has ended. */
const farewellMs = 1_000;

/**
 * Opens the run directory, listens, records the run, and starts it when enough workers have come.
 * Rejects, with nothing recorded, when the directory, the spec or a port does not fit: see `openRun`; `port-in-use`; `permission-denied`
 * for an address that others reach, without TLS.
 */
export async function startCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  const { logger: log } = options;
  const runDir = resolve(options.runDir);
  const { metricsHost = "127.0.0.1" } = options;
  const { tls, insecureBind = false } = options.security ?? {};
  const metricsTls = insecureBind || isLoopback(metricsHost) ? undefined : tls;
  for (const [what, host, own] of [
    ["the coordinator", options.host, tls],
    ["its metrics page", metricsHost, metricsTls],
  ] as const) {
    const isEncrypted = own !== undefined;
    const warning = checkBind({ what, host, isEncrypted, isInsecureAllowed: insecureBind });
    if (warning !== undefined) log.warn({ host }, warning);
  }
  const opened = await openRun({ ...options, runDir }, log);
  if (opened.recorded?.finished) {
    await opened.ledger.close();
    return alreadyFinished(opened.recorded, runDir);
  }
  const closers: (() => Promise<void>)[] = [() => opened.ledger.close()];
  let closing: Promise<void> | undefined;
  const closeAll = (): Promise<void> => {
    closing ??= (async () => {
      for (const close of closers.reverse()) await close();
    })();
    return closing;
  };
  try {
    return await compose();
  } catch (error) {
    await closeAll();
    throw error;
  }

  async function compose(): Promise<Coordinator> {
    const slot = createSlot();
    const changes = createChanges(updateMs, () => {
      if (slot.run) options.onUpdate?.(slot.run.view());
    });
    const runIdNow = (): string => slot.run?.runner.state.durable.runId ?? "";
    const { host, port, metricsPort } = options;
    const admission = { runDir, host, security: options.security, runId: runIdNow };
    const sessions = createSessions({
      admit: await openAdmission(admission),
      onRefused: refusalLog(log),
      welcome: async (signal) => welcomeTo(await slot.started(signal), options.redisUrl, runDir),
      post: async (event) => slot.run?.runner.post(event),
    });

    async function begin(durable: DurableState): Promise<void> {
      const parts = { opened, runDir, redisUrl: options.redisUrl, sessions, log };
      const run = await startRun(durable, { ...parts, onChange: changes.announce });
      slot.put(run, changes.flush);
    }

    async function submit(spec: unknown): Promise<void> {
      if (slot.run) throw alreadyRuns(slot.run);
      const pinned = await pinOrigins(parseRunSpec(spec));
      await prepareCheckpoints(pinned, runDir);
      await begin(await recordRun(opened, runDir, pinned, Date.now()));
    }

    const control: RunControl = {
      view: () => slot.run?.view(),
      hasEnded: () => slot.run?.runner.state.outcome !== null,
      logicalRanks: () => slot.run?.runner.state.durable.spec.logicalRanks ?? 0,
      post: async (event) => slot.run?.runner.post(event),
      submit,
      changed: changes.next,
    };
    const grpc = await startGrpcServer({
      ...{ host, port, tls, logger: log },
      services: [sessions.service, runService(control)],
    });
    closers.push(() => grpc.close(control.hasEnded() ? farewellMs : 0));
    const registry = createMetrics({ role: "coordinator" });
    const metrics = createRunMetrics(registry);
    const http = await startHttpServer({
      ...{ host: metricsHost, port: metricsPort, tls: metricsTls, logger: log },
      registry,
      status: () => slot.run?.view() ?? { phase: "idle" },
      beforeScrape: async () => {
        const { run } = slot;
        if (run) metrics.refresh(run.runner.state, await run.segments.usedMemoryBytes());
      },
    });
    closers.push(() => http.close());
    closers.push(async () => {
      await slot.run?.close();
      changes.flush();
    });

    const { recorded, specToRecord } = opened;
    if (specToRecord) await begin(await recordRun(opened, runDir, specToRecord, Date.now()));
    else if (recorded) await begin(recorded);

    function drain(reason: string): void {
      if (slot.run) void slot.run.runner.post({ kind: "drain", reason });
      else slot.giveUp({ kind: "interrupted", reason, summary: null });
    }
    const onSignal = (): void => drain(String(options.signal.reason));
    options.signal.addEventListener("abort", onSignal, { once: true });
    closers.push(async () => options.signal.removeEventListener("abort", onSignal));
    if (options.signal.aborted) onSignal();
    log.info({ address: grpc.address, metrics: http.address, runDir }, "coordinator listens");
    return {
      address: grpc.address,
      metricsAddress: http.address,
      get runId() {
        return runIdNow();
      },
      done: slot.done,
      drain,
      close: closeAll,
    };
  }
}

/** The place of the one run of a coordinator: empty until there is one. */
function createSlot() {
  const started = deferred<LiveRun>();
  const done = deferred<CoordinatorResult>();
  let run: LiveRun | undefined;
  return {
    get run() {
      return run;
    },
    /** @param beforeDone called when the run is done, before the slot is */
    put(live: LiveRun, beforeDone: () => void): void {
      run = live;
      started.resolve(live);
      void live.done.then((result) => {
        beforeDone();
        done.resolve(result);
      });
    },
    /** Ends an empty slot's wait. */
    giveUp: done.resolve,
    done: done.promise,
    /** Resolves with the run once there is one; rejects with the signal's reason. */
    started: (signal: AbortSignal): Promise<LiveRun> =>
      new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
        void started.promise.then(resolve);
      }),
  };
}

function deferred<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let settle = (_value: T): void => undefined;
  const promise = new Promise<T>((resolve) => {
    settle = resolve;
  });
  return { promise, resolve: (value) => settle(value) };
}

function welcomeTo(run: LiveRun, redisUrl: string, runDir: string): Omit<Welcome, "version"> {
  const { durable } = run.runner.state;
  const { runId, spec } = durable;
  return {
    runId,
    specJson: JSON.stringify(spec),
    leaseSeconds: spec.fleet.leaseSeconds,
    runDir,
    redisUrl,
    checkpointRoot: checkpointRootOf(durable, runDir),
  };
}

function alreadyRuns(run: LiveRun): PaddockError {
  return new PaddockError(
    "already-exists",
    `expected a coordinator without a run, but this one has ${run.view().runId}; submit to another coordinator, with its own run directory`,
  );
}

/** Resuming what has finished is no error and does nothing. */
async function alreadyFinished(durable: DurableState, runDir: string): Promise<Coordinator> {
  const summary = await readFile(join(runDir, "summary.json"), "utf8")
    .then((text) => JSON.parse(text) as Summary)
    .catch(() => summaryOf(initialState(durable, unixNow()), undefined, 0));
  return {
    address: "",
    metricsAddress: "",
    runId: durable.runId,
    done: Promise.resolve({ kind: "finished", summary }),
    drain: () => undefined,
    close: async () => undefined,
  };
}
