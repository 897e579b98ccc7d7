/** One role of the fleet as a process that is started, armed with a failpoint, stopped, continued and replaced. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { env, execPath } from "node:process";
import { threadEnvironment } from "@paddock/engine";

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface RoleOptions {
  /** "coordinator", "worker-<slot>": of its log and of its arms. */
  readonly name: string;
  /** Of logs, arms, hits and audit. */
  readonly folder: string;
  /** Arguments of node for its `start`-th process, from 0. */
  readonly command: (start: number) => readonly string[];
  readonly onExit: (exit: Exit) => void;
}

export class Role {
  readonly name: string;
  readonly #o: RoleOptions;
  #child: ChildProcess | undefined;
  #starts = 0;
  #lastPid: number | undefined;

  constructor(options: RoleOptions) {
    this.#o = options;
    this.name = options.name;
    for (const folder of ["logs", "arms"])
      mkdirSync(join(options.folder, folder), { recursive: true });
  }

  /** Undefined while no process runs. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Of the process that runs, or ran last. */
  get lastPid(): number | undefined {
    return this.#lastPid;
  }

  start(): void {
    const { folder, name, command, onExit } = this.#o;
    const log = openSync(join(folder, "logs", `${name}.log`), "a");
    const child = spawn(execPath, [...command(this.#starts++)], {
      stdio: ["ignore", log, log],
      env: {
        ...env,
        ...threadEnvironment(1),
        PADDOCK_FAILPOINTS: `@${this.#arms}`,
        PADDOCK_FAILPOINTS_LOG: join(folder, "hits.jsonl"),
        PADDOCK_AUDIT: join(folder, "audit"),
      },
    });
    closeSync(log);
    this.#child = child;
    this.#lastPid = child.pid;
    child.once("exit", (code, signal) => {
      if (this.#child !== child) return;
      this.#child = undefined;
      onExit({ code, signal });
    });
  }

  /** What its process, and those after it, do at their failpoints; counted from now on. */
  arm(text: string): void {
    // Renamed, for it may be read at any moment.
    writeFileSync(`${this.#arms}.new`, text);
    renameSync(`${this.#arms}.new`, this.#arms);
  }

  disarm(): void {
    rmSync(this.#arms, { force: true });
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  get #arms(): string {
    return join(this.#o.folder, "arms", this.name);
  }
}
