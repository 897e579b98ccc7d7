/** A fleet as it stands on several machines: Redis, `paddock coordinator` and `paddock worker` processes, each to be killed by itself. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { env } from "node:process";
import type { LedgerRecord } from "@paddock/contract";
import { cliFile, readSteps, until } from "./paddock.js";
import { freePort, startTestRedis, type TestRedis } from "./redis.js";

export interface Fleet {
  readonly runDir: string;
  readonly redis: TestRedis;
  /** host:port */
  readonly coordinator: string;
  /** Starts the coordinator, or another one that goes on with the run. Resolves with its exit code at its end. */
  startCoordinator(resume?: boolean, environment?: Readonly<Record<string, string>>): Member;
  startWorker(
    name: string,
    flags?: readonly string[],
    environment?: Readonly<Record<string, string>>,
  ): Member;
  /** Everything that was appended so far. */
  ledger(): LedgerRecord[];
  committed(step: number, seconds?: number): Promise<void>;
  /** Kills what still runs. */
  stop(): Promise<void>;
}

export interface Member {
  readonly name: string;
  readonly process: ChildProcess;
  /** Exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
  readonly log: () => string;
  kill(signal: NodeJS.Signals): void;
}

export async function startFleet(o: {
  readonly directory: string;
  readonly name: string;
  readonly spec: string;
  readonly environment?: NodeJS.ProcessEnv;
}): Promise<Fleet> {
  const runDir = join(o.directory, o.name);
  const redis = await startTestRedis(o.directory);
  const address = `127.0.0.1:${await freePort()}`;
  const members: Member[] = [];
  const start = (name: string, args: readonly string[], own = {}): Member => {
    const member = startMember(join(o.directory, `${o.name}-${name}.log`), name, args, {
      ...env,
      ...o.environment,
      ...own,
    });
    members.push(member);
    return member;
  };
  const ledger = (): LedgerRecord[] => {
    const path = join(runDir, "ledger.jsonl");
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    return text.split("\n").flatMap((line) => recordOf(line) ?? []);
  };
  return {
    runDir,
    redis,
    coordinator: address,
    startCoordinator: (resume = false, environment = {}) =>
      start(
        "coordinator",
        [
          cliFile,
          ...["coordinator", o.spec, "--run-dir", runDir, "--redis", redis.url, "--json"],
          ...["--port", address.split(":")[1] as string],
          ...(resume ? ["--resume"] : []),
        ],
        environment,
      ),
    startWorker: (name, flags = [], environment = {}) =>
      start(name, [workerFile, "--coordinator", address, "--name", name, ...flags], environment),
    ledger,
    committed: (step, seconds = 60) =>
      until(
        `${o.name}: step ${step}`,
        seconds,
        () => (readSteps(runDir).at(-1)?.step ?? -1) >= step,
      ),
    async stop() {
      for (const member of members) member.kill("SIGKILL");
      await Promise.all(members.map(({ ended }) => ended));
      await redis.stop();
    },
  };
}

const workerFile = join(dirname(cliFile), "../../worker/dist/main.js");

function startMember(
  logFile: string,
  name: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
): Member {
  const log = openSync(logFile, "a");
  const child = spawn(process.execPath, [...args], {
    env: environment,
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? signal));
  });
  return {
    name,
    process: child,
    ended,
    log: () => readFileSync(logFile, "utf8"),
    kill: (signal) => void child.kill(signal),
  };
}

/** A ledger line is a checksum and a record; the last one may still be on its way. */
function recordOf(line: string): LedgerRecord | undefined {
  const start = line.indexOf("{");
  if (start < 0 || !line.endsWith("}")) return undefined;
  return JSON.parse(line.slice(start)) as LedgerRecord;
}
