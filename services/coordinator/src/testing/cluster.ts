/** A coordinator and fake workers on loopback, with a real Redis. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { RunSpec, StepRecord } from "@paddock/contract";
import { RunService } from "@paddock/proto";
import { createLogger, type GrpcClient, grpcClient, type OpenRedis } from "@paddock/service-kit";
import {
  type Coordinator,
  type CoordinatorOptions,
  startCoordinator,
} from "../runtime/start-coordinator.js";
import { type FakeWorker, type FakeWorkerOptions, startFakeWorker } from "./fake-worker.js";
import { Cleanup } from "./temporary.js";

export class Cluster {
  readonly #cleanup = new Cleanup();
  readonly #redis: Pick<OpenRedis, "url">;

  constructor(redis: Pick<OpenRedis, "url">) {
    this.#redis = redis;
  }

  close(): Promise<void> {
    return this.#cleanup.run();
  }

  closeAtEnd(close: () => unknown): void {
    this.#cleanup.add(close);
  }

  folder(): Promise<string> {
    return this.#cleanup.folder();
  }

  async start(options: Partial<CoordinatorOptions> = {}): Promise<Coordinator> {
    const coordinator = await startCoordinator({
      runDir: options.runDir ?? (await this.folder()),
      resume: false,
      host: "127.0.0.1",
      port: 0,
      metricsPort: 0,
      redisUrl: this.#redis.url,
      logger: createLogger({ name: "test", level: "silent" }),
      signal: new AbortController().signal,
      ...options,
    });
    this.closeAtEnd(() => coordinator.close());
    return coordinator;
  }

  work(address: string, name: string, options: Partial<FakeWorkerOptions> = {}): FakeWorker {
    const worker = startFakeWorker({ address, name, ...options });
    this.closeAtEnd(worker.kill);
    return worker;
  }

  administer(address: string): GrpcClient<typeof RunService> {
    const client = grpcClient(address, RunService);
    this.closeAtEnd(client.close);
    return client;
  }

  /** Runs the spec undisturbed to its end. Returns the run directory. */
  async finish(spec: RunSpec): Promise<string> {
    const runDir = await this.folder();
    const coordinator = await this.start({ runDir, spec });
    for (let i = 0; i < spec.fleet.workers; i++) this.work(coordinator.address, `w${i}`);
    await coordinator.done;
    return runDir;
  }
}

export async function readSteps(runDir: string): Promise<StepRecord[]> {
  const text = await readFile(join(runDir, "steps.jsonl"), "utf8");
  const lines = text.split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as StepRecord);
}

/** What must not depend on workers, kills and resumes. */
export async function readNumbers(runDir: string): Promise<Partial<StepRecord>[]> {
  const steps = await readSteps(runDir);
  return steps.map(({ step, loss, losses, gradNorm, lr }) => ({
    step,
    loss,
    losses,
    gradNorm,
    lr,
  }));
}
