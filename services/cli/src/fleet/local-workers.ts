/** Worker processes of this machine: started, watched, restarted a few times, and ended with the run. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";

/** How to start one worker. */
export interface WorkerCommand {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** The end of a worker process that should not have ended. */
export interface WorkerExit {
  /** Index of its slot, from 0. */
  readonly slot: number;
  /** Exit code, or the signal that ended it. */
  readonly end: number | string;
  /** The end of its log. */
  readonly tail: string;
  /** Whether another process takes its slot. */
  readonly restarts: boolean;
}

export interface LocalWorkersOptions {
  readonly slots: number;
  /** Logs go to `<dir>/worker-<slot>.log`. Made if absent. */
  readonly dir: string;
  /** The command of the worker in `slot`; `start` counts its processes from 0, for a name of its own. */
  command(slot: number, start: number): WorkerCommand;
  onExit(exit: WorkerExit): void;
  /** No worker is left, and none will be restarted. `exit` is the last one's. */
  onExtinct(exit: WorkerExit): void;
}

export interface LocalWorkers {
  /** Process ids of the living workers. */
  pids(): number[];
  /** No restarts from now on; waits for the workers to end by themselves, then kills the rest. */
  end(graceMs: number): Promise<void>;
  /** SIGKILL to all, at once. */
  kill(): void;
}

const maxRestarts = 3;
const tailLines = 8;

/**
 * Starts the workers, each in a session of its own: a terminal's Ctrl-C reaches the coordinator only, which drains them.
 * Exit codes 2 and 3 (wrong use, environment) are not restarted: the next process would find the same.
 */
export async function startLocalWorkers(options: LocalWorkersOptions): Promise<LocalWorkers> {
  await mkdir(options.dir, { recursive: true });
  const living = new Map<number, ChildProcess>();
  let ending = false;

  const start = async (slot: number, starts: number): Promise<void> => {
    const { program, args, env } = options.command(slot, starts);
    const logFile = join(options.dir, `worker-${slot}.log`);
    const log = await open(logFile, "a");
    const child = spawn(program, [...args], {
      detached: true,
      env: { ...env },
      stdio: ["ignore", log.fd, log.fd],
    });
    living.set(slot, child);
    const ended = (end: number | string): void => {
      if (living.get(slot) !== child) return;
      living.delete(slot);
      // 0: its coordinator sent it home.
      if (!ending && end !== 0) void replace({ slot, starts, end, logFile });
    };
    child.once("error", (error) => ended(error.message));
    child.once("exit", (code, signal) => ended(code ?? signal ?? "unknown"));
    await log.close();
  };

  const replace = async (o: {
    slot: number;
    starts: number;
    end: number | string;
    logFile: string;
  }): Promise<void> => {
    const restarts = o.end !== 2 && o.end !== 3 && o.starts < maxRestarts;
    const exit = { slot: o.slot, end: o.end, restarts, tail: await tailOf(o.logFile) };
    if (ending) return;
    options.onExit(exit);
    if (restarts) await start(o.slot, o.starts + 1);
    else if (living.size === 0) options.onExtinct(exit);
  };

  await Promise.all(Array.from({ length: options.slots }, (_, slot) => start(slot, 0)));
  const kill = (): void => {
    ending = true;
    for (const child of living.values()) child.kill("SIGKILL");
  };
  return {
    pids: () => [...living.values()].flatMap(({ pid }) => (pid === undefined ? [] : [pid])),
    kill,
    async end(graceMs) {
      ending = true;
      const timer = setTimeout(kill, graceMs);
      await Promise.all([...living.values()].map(exited));
      clearTimeout(timer);
    },
  };
}

function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
}

async function tailOf(file: string): Promise<string> {
  const text = await readFile(file, "utf8").catch(() => "");
  return text.trimEnd().split("\n").slice(-tailLines).map(readable).join("\n");
}

/** The message of a structured log line, or the line as it is. */
function readable(line: string): string {
  try {
    const { msg, err } = JSON.parse(line) as { msg?: string; err?: { message?: string } };
    return [msg, err?.message].filter(Boolean).join(": ");
  } catch {
    return line;
  }
}
