/**
 * The two sides of a comparison as child processes. They take turns, measurement by measurement, so that both see the same
 * machine; each measures itself. A command is one JSON line on stdin, its answer one JSON line on stdout.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export type Answer = Readonly<Record<string, number>>;

export interface Side {
  /** Runs one command; rejects if the child ends or answers `{error}`. */
  ask(command: object): Promise<Answer>;
  close(): Promise<void>;
}

/** A side of ours: a compiled file of this folder's parent, e.g. "step-side.js". It inherits the thread settings. */
export function openOurs(file: string, args: readonly string[] = []): Side {
  const script = fileURLToPath(new URL(`../${file}`, import.meta.url));
  return openSide(process.execPath, [script, ...args]);
}

/**
 * A peer: a script of `peers/` under a python. It has our thread settings, but not our bitwise reproducible products, which
 * its users do without. Waiting threads sleep on both sides: spinning ones collapse on a shared machine, which would flatter us.
 */
export function openPeer(python: string, file: string, args: readonly string[] = []): Side {
  const script = fileURLToPath(new URL(`../../../bench/peers/${file}`, import.meta.url));
  const unset = ["-u", "MKL_CBWR"];
  return openSide("env", [...unset, python, "-B", "-u", script, ...args]);
}

function openSide(program: string, args: readonly string[]): Side {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const waiting: PromiseWithResolvers<Answer>[] = [];
  const name = args.at(-1) ?? program;
  const ended = new Promise<void>((resolve) => {
    child.on("close", (code) => {
      for (const { reject } of waiting.splice(0)) {
        reject(new Error(`${name} ended with code ${code} instead of answering; see its output`));
      }
      resolve();
    });
  });
  createInterface({ input: child.stdout }).on("line", (text) => {
    // Libraries may print too; an answer is an object.
    if (text.startsWith("{")) settle(waiting.shift(), text);
    else process.stderr.write(`${text}\n`);
  });
  return {
    ask(command) {
      const answer = withResolvers<Answer>();
      waiting.push(answer);
      write(child, command);
      return answer.promise;
    },
    async close() {
      child.stdin.end();
      await ended;
    },
  };
}

interface PromiseWithResolvers<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: Error) => void;
}

function withResolvers<T>(): PromiseWithResolvers<T> {
  let settleWith: Pick<PromiseWithResolvers<T>, "resolve" | "reject"> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settleWith = { resolve, reject };
  });
  return { promise, ...(settleWith as Pick<PromiseWithResolvers<T>, "resolve" | "reject">) };
}

function settle(answer: PromiseWithResolvers<Answer> | undefined, text: string): void {
  const parsed: Answer & { readonly error?: string } = JSON.parse(text);
  if (parsed.error === undefined) answer?.resolve(parsed);
  else answer?.reject(new Error(parsed.error));
}

function write({ stdin }: ChildProcess, command: object): void {
  stdin?.write(`${JSON.stringify(command)}\n`);
}

/**
 * Answers commands until stdin ends: for a side of ours. Commands run one after the other.
 * @param commands by name; a command is `{do: name, ...}`
 */
export async function serveCommands(
  commands: Readonly<Record<string, (command: Command) => Promise<Answer> | Answer>>,
): Promise<void> {
  for await (const text of createInterface({ input: process.stdin })) {
    const command: Command = JSON.parse(text);
    try {
      const run = commands[command.do];
      if (!run) throw new RangeError(`no command ${command.do}`);
      process.stdout.write(`${JSON.stringify(await run(command))}\n`);
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      process.stdout.write(`${JSON.stringify({ error: text })}\n`);
    }
  }
}

export type Command = Readonly<Record<string, unknown>> & { readonly do: string };

/** Asks both sides in turn, the first to go alternating: `pairs` answers of each, after `warmup` that do not count. */
export async function alternate(
  ours: Side,
  peer: Side,
  command: object,
  { pairs, warmup = 1 }: { readonly pairs: number; readonly warmup?: number },
): Promise<{ readonly ours: Answer[]; readonly peer: Answer[] }> {
  const answers = { ours: [] as Answer[], peer: [] as Answer[] };
  for (let i = -warmup; i < pairs; i++) {
    const order = i % 2 === 0 ? (["ours", "peer"] as const) : (["peer", "ours"] as const);
    for (const side of order) {
      const answer = await (side === "ours" ? ours : peer).ask(command);
      if (i >= 0) answers[side].push(answer);
    }
  }
  return answers;
}

/** One quantity out of the answers. */
export function pick(answers: readonly Answer[], of: (answer: Answer) => number): number[] {
  return answers.map(of);
}
