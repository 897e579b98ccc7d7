/**
 * A real fleet under supervision: its own Redis, a coordinator process, worker processes behind proxies. Whatever ends is started again, as
 * an operator or a cluster manager would, until the run has finished.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Run, RunService } from "@paddock/proto";
import { type GrpcClient, grpcClient } from "@paddock/service-kit";
import { cliFile } from "../support/paddock.js";
import { freePort } from "../support/redis.js";
import { LedgerReader, type LedgerView } from "./ledger.js";
import { pause, startProxy, type TcpProxy } from "./proxy.js";
import { type ChaosRedis, startChaosRedis } from "./redis.js";
import { type Exit, Role } from "./role.js";
import { type ChaosRun, engineName, leaseSeconds, writeChaosSpec } from "./spec.js";

/** A failpoint that acted. */
export interface Hit {
  readonly failpoint: string;
  readonly action: string;
  readonly argument: string;
  readonly pid: number;
  readonly unixMs: number;
}

export interface WorkerSlot {
  readonly role: Role;
  readonly proxy: TcpProxy;
  /** Whether a process that ends is followed by another one. */
  isWanted: boolean;
}

export const freezeMs = leaseSeconds * 1500;
/** How long Redis is away when it is restarted. */
export const redisDownMs = 100;
const pollMs = 20;
const restartMs = 50;
/** Compiled, also when this file is not. */
const workerEntry = join(dirname(cliFile), "../../worker/dist/main.js");

export class Fleet {
  readonly folder: string;
  readonly runDir: string;
  readonly coordinator: Role;
  readonly coordinatorPort: number;
  readonly redis: ChaosRedis;
  readonly slots = new Map<number, WorkerSlot>();
  readonly #specPath: string;
  readonly #hits: Hit[] = [];
  readonly #frozen = new Map<number, number>();
  readonly #timer: NodeJS.Timeout;
  readonly #reader: LedgerReader;
  #ledger: LedgerView;
  #isClosing = false;
  #coordinatorEnd: Exit | undefined;

  static async start(folder: string, run: ChaosRun, present = run.workers): Promise<Fleet> {
    mkdirSync(join(folder, "audit"), { recursive: true });
    const specPath = writeChaosSpec(folder, run);
    const [redis, port] = [await startChaosRedis(folder), await freePort()];
    const fleet = new Fleet(folder, specPath, redis, port);
    fleet.coordinator.start();
    for (let slot = 0; slot < present; slot++) await fleet.join(slot);
    return fleet;
  }

  private constructor(folder: string, specPath: string, redis: ChaosRedis, port: number) {
    this.folder = folder;
    this.runDir = join(folder, "run");
    this.#specPath = specPath;
    this.redis = redis;
    this.coordinatorPort = port;
    this.coordinator = new Role({
      name: "coordinator",
      folder,
      command: () => this.#coordinatorCommand(),
      onExit: (exit) => this.#coordinatorEnded(exit),
    });
    this.#reader = new LedgerReader(this.runDir);
    this.#ledger = this.#reader.read();
    this.#timer = setInterval(() => this.#poll(), pollMs);
  }

  /** As of the last 20 ms. */
  get ledger(): LedgerView {
    return this.#ledger;
  }

  get hits(): readonly Hit[] {
    return this.#hits;
  }

  /** The run has its last step and the coordinator has gone. */
  get isOver(): boolean {
    return this.#ledger.finished && this.coordinator.pid === undefined;
  }

  /** All wanted workers are members of a generation that has committed something. */
  isWhole(workers: number): boolean {
    const { records } = this.#ledger;
    const last = records.findLast(({ kind }) => kind === "generation");
    if (last?.kind !== "generation" || last.workers !== workers) return false;
    return records.some((r) => r.kind === "commit" && r.generation === last.generation);
  }

  get living(): WorkerSlot[] {
    return [...this.slots.values()].filter(
      ({ isWanted, role }) => isWanted && role.pid !== undefined,
    );
  }

  /** Starts a worker in that slot, unless there is one. */
  async join(slot: number): Promise<void> {
    const known = this.slots.get(slot);
    if (known) {
      known.isWanted = true;
      if (known.role.pid === undefined) known.role.start();
      return;
    }
    const proxy = await startProxy(this.coordinatorPort);
    const role = new Role({
      name: `worker-${slot}`,
      folder: this.folder,
      command: (start) => [
        workerEntry,
        ...["--coordinator", `127.0.0.1:${proxy.port}`],
        ...["--name", `worker-${slot}.${start}`, "--engine", engineName()],
      ],
      onExit: () => this.#workerEnded(slot),
    });
    this.slots.set(slot, { role, proxy, isWanted: true });
    role.start();
  }

  /** Asks a worker to go; nobody follows it. */
  leave(slot: number, signal: NodeJS.Signals): void {
    const worker = this.slots.get(slot);
    if (!worker) return;
    worker.isWanted = false;
    worker.role.signal(signal);
  }

  /** SIGSTOP, and SIGCONT after `ms`. */
  freeze(role: Role, ms = freezeMs): void {
    const { pid } = role;
    if (pid === undefined) return;
    role.signal("SIGSTOP");
    this.#frozen.set(pid, Date.now() + ms);
  }

  get isAnyFrozen(): boolean {
    return this.#frozen.size > 0;
  }

  /** Another number of wanted workers; false when the coordinator cannot be asked now. */
  async scale(workers: number): Promise<boolean> {
    const run = await this.#ask((client) =>
      client.scale({ runId: "", workers }, { timeoutMs: 1000 }),
    );
    return run !== undefined;
  }

  /** The slot of the member that evaluates; undefined when the coordinator cannot be asked now. */
  async evaluator(): Promise<number | undefined> {
    const run = await this.#ask((client) => client.get({ runId: "" }, { timeoutMs: 1000 }));
    const name = run?.workers.find(({ worker }) => worker === 0)?.workerName;
    const slot = /^worker-(\d+)\./.exec(name ?? "")?.[1];
    return slot === undefined ? undefined : Number(slot);
  }

  disarmAll(): void {
    for (const role of this.#roles) role.disarm();
  }

  /** Waits until `check` holds; false after `seconds`. */
  async until(seconds: number, check: () => boolean): Promise<boolean> {
    const end = performance.now() + seconds * 1000;
    while (!check()) {
      if (performance.now() > end) return false;
      await pause(pollMs);
      this.#poll();
    }
    return true;
  }

  /** Ends every process. */
  async close(): Promise<void> {
    this.#isClosing = true;
    clearInterval(this.#timer);
    this.killAll();
    for (const { proxy } of this.slots.values()) proxy.close();
    await this.redis.stop();
  }

  /** Also what is stopped: SIGKILL reaches that too. */
  killAll(): void {
    this.#isClosing = true;
    for (const { role } of this.slots.values()) role.signal("SIGKILL");
    this.coordinator.signal("SIGKILL");
  }

  /** Why the coordinator ended last, for reports. */
  get coordinatorEnd(): string {
    const { code, signal } = this.#coordinatorEnd ?? { code: null, signal: null };
    return String(code ?? signal ?? "running");
  }

  async #ask(what: (client: GrpcClient<typeof RunService>) => Promise<Run>) {
    const client = grpcClient(`127.0.0.1:${this.coordinatorPort}`, RunService);
    try {
      return await what(client);
    } catch {
      return undefined;
    } finally {
      client.close();
    }
  }

  get #roles(): Role[] {
    return [this.coordinator, ...[...this.slots.values()].map(({ role }) => role)];
  }

  #coordinatorCommand(): string[] {
    const hasBegun = this.#reader.read().records.length > 0;
    return [
      ...[cliFile, "coordinator", this.#specPath, "--run-dir", this.runDir],
      ...["--port", String(this.coordinatorPort), "--redis", this.redis.url],
      ...(hasBegun ? ["--resume"] : []),
    ];
  }

  #coordinatorEnded(exit: Exit): void {
    this.#coordinatorEnd = exit;
    this.#poll();
    this.#after(restartMs, () => {
      if (!this.#ledger.finished) this.coordinator.start();
    });
  }

  #workerEnded(slot: number): void {
    const worker = this.slots.get(slot);
    this.#after(restartMs, () => {
      const isNeeded = worker?.isWanted && worker.role.pid === undefined && !this.#ledger.finished;
      if (isNeeded) worker.role.start();
    });
  }

  /** A process has stopped itself at a failpoint: for how long, or for what to be done to Redis meanwhile, is its note. */
  async #hasFrozen({ pid, argument, unixMs }: Hit): Promise<void> {
    this.#frozen.set(pid, unixMs + (Number(argument) || freezeMs));
    if (argument === "redis-flush") await this.redis.flush();
    else if (argument === "redis-restart") await this.redis.restart(redisDownMs);
    else return;
    this.#frozen.set(pid, Date.now());
  }

  /** What has acted is disarmed before a process starts again. */
  #after(ms: number, work: () => void): void {
    setTimeout(() => {
      if (this.#isClosing) return;
      this.#poll();
      work();
    }, ms);
  }

  #poll(): void {
    if (this.#isClosing) return;
    this.#ledger = this.#reader.read();
    this.#readHits();
    for (const [pid, untilMs] of this.#frozen) {
      if (Date.now() < untilMs) continue;
      this.#frozen.delete(pid);
      try {
        process.kill(pid, "SIGCONT");
      } catch {
        // It was killed while it was stopped.
      }
    }
  }

  #readHits(): void {
    const path = join(this.folder, "hits.jsonl");
    if (!existsSync(path)) return;
    const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
    for (const line of lines.slice(this.#hits.length)) {
      const hit = JSON.parse(line) as Hit;
      this.#hits.push(hit);
      if (hit.action === "log") continue;
      if (hit.action === "freeze") void this.#hasFrozen(hit);
      this.#roles.find(({ lastPid }) => lastPid === hit.pid)?.disarm();
    }
  }
}
