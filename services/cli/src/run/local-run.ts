/** One run on this machine: Redis, coordinator, workers; from start to a drained end. */
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PaddockError, type RunSpec } from "@paddock/contract";
import {
  type Coordinator,
  type CoordinatorResult,
  type CoordinatorSecurity,
  startCoordinator,
} from "@paddock/coordinator";
import { createLogger, hideSecret, type OpenRedis, openRedis } from "@paddock/service-kit";
import type { Display, RunEvent } from "../display/display.js";
import { startLocalWorkers, type WorkerExit } from "../fleet/local-workers.js";
import { workerCommand } from "../fleet/worker-command.js";
import { listenForSignals } from "./signals.js";

export interface LocalRunOptions {
  readonly runDir: string;
  readonly spec: RunSpec;
  /** Continue from the run directory's last checkpoint. */
  readonly resume: boolean;
  /** Workers to start here; 0 when they come from elsewhere. */
  readonly localWorkers: number;
  readonly redisUrl: string | undefined;
  /** Environment variables that worker processes inherit. */
  readonly environment: NodeJS.ProcessEnv;
  /** Address to listen on, and ports of gRPC and metrics (0: any free one). */
  readonly host: string;
  readonly port: number;
  readonly metricsPort: number;
  readonly metricsHost: string | undefined;
  readonly security: CoordinatorSecurity;
  readonly display: Display;
}

/** How long workers may take to leave after the end: the first one still draws the pictures of the report. */
const goodbyeMs = 30_000;

/**
 * Runs to the end, a drain after SIGINT or SIGTERM, or a failure. Everything started here is stopped before it returns.
 * Errors: those of Redis, ports and the run directory.
 */
export async function runLocally(options: LocalRunOptions): Promise<CoordinatorResult> {
  const { runDir, display } = options;
  const logger = createLogger({
    name: "coordinator",
    level: "info",
    file: join(runDir, "logs", "coordinator.log"),
  });
  const redis = await openRedis({ url: options.redisUrl, dir: join(runDir, "redis"), logger });
  const draining = new AbortController();
  try {
    const coordinator = await startCoordinator({
      runDir,
      spec: options.spec,
      resume: options.resume,
      host: options.host,
      port: options.port,
      metricsPort: options.metricsPort,
      metricsHost: options.metricsHost,
      security: options.security,
      redisUrl: redis.url,
      logger,
      signal: draining.signal,
      onUpdate: (run) => display.update(run),
    });
    // Empty for a run that had finished before: nothing was started for it.
    if (coordinator.address === "") return await coordinator.done;
    await noteAddress(runDir, coordinator, options.security.tls?.dir);
    display.event(startedEvent(options, coordinator, redis));
    return await withWorkers(options, coordinator, draining);
  } finally {
    await redis.close();
  }
}

function startedEvent({ runDir }: LocalRunOptions, at: Coordinator, redis: OpenRedis): RunEvent {
  return {
    kind: "started",
    message: [
      `run        ${runDir}`,
      `redis      ${redis.description}`,
      `listening  ${at.address}, metrics http://${at.metricsAddress}/metrics`,
    ].join("\n"),
    fields: {
      runId: at.runId,
      runDir,
      redis: { route: redis.route, url: hideSecret(redis.url) },
      address: at.address,
      metricsAddress: at.metricsAddress,
    },
  };
}

/** Runs the workers beside the coordinator until it is done. */
async function withWorkers(
  options: LocalRunOptions,
  coordinator: Coordinator,
  draining: AbortController,
): Promise<CoordinatorResult> {
  const { spec, runDir, display } = options;
  let extinct: (exit: WorkerExit) => void = () => undefined;
  const noWorkerLeft = new Promise<WorkerExit>((resolve) => {
    extinct = resolve;
  });
  const workers = await startLocalWorkers({
    slots: options.localWorkers,
    dir: join(runDir, "logs"),
    command: (slot, start) =>
      workerCommand({
        coordinator: coordinator.address,
        slot,
        start,
        engine: spec.engine,
        environment: options.environment,
        tlsDir: options.security.tls?.dir,
        joinToken: options.security.localToken,
      }),
    onExit: (exit) => display.event(exitEvent(exit)),
    onExtinct: extinct,
  });
  const signals = listenForSignals(
    (name) => {
      const message = `${name}: finishing the step and writing a checkpoint; once more to end at once`;
      display.event({ kind: "draining", message, fields: { signal: name } });
      draining.abort(name);
    },
    () => {
      workers.kill();
      display.close();
      process.exit(130);
    },
  );
  try {
    return await Promise.race([
      coordinator.done,
      noWorkerLeft.then((exit) => Promise.reject(extinction(exit))),
    ]);
  } finally {
    await Promise.all([workers.end(goodbyeMs), coordinator.close()]);
    signals.close();
  }
}

function exitEvent({ slot, end, tail, restarts }: WorkerExit): RunEvent {
  const next = restarts ? "starting it again" : "not starting it again";
  return {
    kind: restarts ? "worker-restart" : "worker-exit",
    message: `worker ${slot} ended with ${end}, ${next}; its last words:\n${indent(tail)}`,
    fields: { slot, end, tail },
  };
}

/** The last worker's own error where it says one, else that the fleet is gone. */
function extinction({ slot, end, tail }: WorkerExit): PaddockError {
  const code = end === 3 ? "engine-unavailable" : end === 2 ? "invalid-argument" : "run-failed";
  return new PaddockError(
    code,
    `expected at least one living worker, but the last one (${slot}) ended with ${end}:\n${indent(tail)}`,
  );
}

function indent(text: string): string {
  return text.replace(/^/gm, "    ");
}

/** How `paddock status` finds a run that listens on any free port. */
async function noteAddress(
  runDir: string,
  { address, metricsAddress }: Coordinator,
  tlsDir: string | undefined,
): Promise<void> {
  const note = { address, metricsAddress, pid: process.pid, ...(tlsDir ? { tlsDir } : {}) };
  const path = join(runDir, "coordinator.json");
  // Whoever reads it finds all of it.
  await writeFile(`${path}.new`, `${JSON.stringify(note)}\n`);
  await rename(`${path}.new`, path);
}
