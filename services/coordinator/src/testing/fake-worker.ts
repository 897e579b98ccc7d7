/** A worker without tensors that speaks the real protocol over real gRPC and writes real checkpoint files. */
import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { layoutOf, parseRunSpec, type RunSpec } from "@paddock/contract";
import {
  type Assignment,
  type Decision,
  DecisionKind,
  type Holding,
  protocolVersion,
  type Shutdown,
  type Version,
  type Welcome,
  type WorkerMessage,
  WorkerService,
} from "@paddock/proto";
import { createQueue, type GrpcClientOptions, grpcClient } from "@paddock/service-kit";
import { examplePrepared } from "./example.js";

type Behaviour = "hang" | "die" | undefined;

export interface FakeWorkerOptions {
  readonly address: string;
  readonly name: string;
  readonly version?: Version;
  /** Certificates and metadata of its connection. */
  readonly connection?: GrpcClientOptions;
  /** Called before a step is prepared; "hang" does nothing from then on, "die" ends the connection. */
  readonly beforeStep?: (step: number, assignment: Assignment) => Behaviour | Promise<Behaviour>;
  /** What it says it holds from before. */
  readonly holdings?: readonly Holding[];
  /** Added to the size that is reported for a checkpoint file. */
  readonly lieBytes?: number;
}

export interface FakeWorker {
  readonly assignments: readonly Assignment[];
  readonly decisions: readonly Decision[];
  readonly shutdown: Shutdown | undefined;
  /** What it would say after a cut. */
  readonly holdings: readonly Holding[];
  send(message: WorkerMessage): void;
  /** Cuts the connection. */
  kill(): void;
  /** Resolves when the session has ended; rejects with the coordinator's error. */
  readonly ended: Promise<void>;
}

export function startFakeWorker(options: FakeWorkerOptions): FakeWorker {
  const client = grpcClient(options.address, WorkerService, options.connection ?? {});
  const outgoing = createQueue<WorkerMessage>(1_000);
  const cut = new AbortController();
  const assignments: Assignment[] = [];
  const decisions: Decision[] = [];
  let shutdown: Shutdown | undefined;
  let welcome: Welcome | undefined;
  let spec: RunSpec | undefined;
  let assignment: Assignment | undefined;
  /** Of the assignment: committed steps, decisions, whether the next step is prepared. */
  let shards = { step: 0, decided: 0, prepared: false };
  let holdings: Holding[] = [...(options.holdings ?? [])];

  const send = (message: WorkerMessage): void => void outgoing.push(message);

  send({
    kind: "hello",
    hello: {
      version: options.version ?? protocolVersion,
      workerName: options.name,
      host: "localhost",
      pid: process.pid,
      engine: "fake",
      device: "none",
      threads: 1,
      peerAddress: `${options.name}:1`,
      holdings,
    },
  });

  async function prepare(step: number): Promise<void> {
    if (!assignment || !spec || step >= spec.steps) return;
    const behaviour = await options.beforeStep?.(step, assignment);
    if (behaviour === "die") cut.abort(new Error("died"));
    if (behaviour) return;
    const { generation, worker, workers, rankCuts: cuts } = assignment;
    send({ kind: "progress", progress: { generation, step, phase: "student", waitingOn: [] } });
    const position = { generation, step, worker, workers, cuts };
    shards = { ...shards, prepared: true };
    send({ kind: "prepared", prepared: examplePrepared(spec, layoutOf(spec), position) });
  }

  async function checkpoint(step: number): Promise<void> {
    if (!assignment || !welcome) return;
    const { generation, worker } = assignment;
    const folder = join(welcome.runDir, "checkpoints", String(step));
    const file = `g${generation}-w${worker}.bin`;
    const content = `state of worker ${worker} after ${step} steps`;
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, file), content);
    const sha256 = createHash("sha256").update(content).digest("hex");
    const bytes = Buffer.byteLength(content) + (options.lieBytes ?? 0);
    send({
      kind: "checkpointWritten",
      checkpointWritten: {
        generation,
        step,
        file,
        bytes,
        sha256,
        worker,
        headBytes: 0,
        headSha256: "",
        ghash: "",
      },
    });
  }

  function evaluate(step: number): void {
    if (assignment?.worker !== 0) return;
    const { generation } = assignment;
    const evaluation = { knnAccuracy: 0.5 + step / 100, bank: 100, queries: 10, seconds: 0.1 };
    send({ kind: "evaluationDone", evaluationDone: { generation, step, ...evaluation } });
  }

  async function obey(decision: Decision): Promise<void> {
    decisions.push(decision);
    const { generation } = decision;
    if (decision.kind === DecisionKind.DECISION_KIND_ABORT) {
      holdings = [...holdings, ...restingShards()];
      assignment = undefined;
      send({ kind: "held", held: { generation, holdings } });
      return;
    }
    const next = decision.step + 1;
    if (!assignment) {
      const held = holdings.filter((h) => h.generation === generation && h.prepared);
      holdings = held.map((h) => ({ ...h, step: next, prepared: false }));
      send({ kind: "held", held: { generation, holdings } });
      return;
    }
    holdings = [];
    shards = { step: next, decided: shards.decided + 1, prepared: false };
    if (decision.checkpoint) await checkpoint(next);
    if (decision.evaluate) evaluate(next);
    if (!decision.stop) await prepare(next);
  }

  /** What it holds of a generation that is over: of one without a step nothing. */
  function restingShards(): Holding[] {
    const { step, decided, prepared } = shards;
    if (!assignment || !welcome || (decided === 0 && !prepared)) return [];
    const { generation, worker, workers, shadow } = assignment;
    return [{ generation, worker, workers, shadow, step, prepared, runId: welcome.runId }];
  }

  async function begin(received: Assignment): Promise<void> {
    const { live, startStep } = received;
    holdings = holdings.filter((h) => h.generation === live?.generation && h.step === startStep);
    shards = { step: startStep, decided: 0, prepared: false };
    assignment = received;
    assignments.push(received);
    if (received.checkpointFirst) await checkpoint(received.startStep);
    if (received.evaluateFirst) evaluate(received.startStep);
    await prepare(received.startStep);
  }

  function leave(received: Shutdown): void {
    shutdown = received;
    send({ kind: "goodbye", goodbye: { reason: "shutdown" } });
    outgoing.end();
  }

  async function session(): Promise<void> {
    for await (const message of client.session(outgoing, { signal: cut.signal })) {
      switch (message.kind) {
        case "welcome":
          welcome = message.welcome;
          spec = parseRunSpec(JSON.parse(welcome.specJson));
          break;
        case "assignment":
          await begin(message.assignment);
          break;
        case "decision":
          await obey(message.decision);
          break;
        case "shutdown":
          leave(message.shutdown);
          break;
        case "drain":
        case undefined:
          break;
      }
    }
  }

  const ended = session().finally(() => {
    outgoing.end();
    client.close();
  });
  ended.catch(() => undefined);
  return {
    assignments,
    decisions,
    get shutdown() {
      return shutdown;
    },
    get holdings() {
      return [...holdings, ...restingShards()];
    },
    send,
    kill: () => cut.abort(new Error("killed")),
    ended,
  };
}
