/** Child processes of the setup: found on PATH, never asked anything, their output kept for when they fail. */
import { spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { env } from "node:process";

/** The environment of the setup: LIBTORCH, REDIS_URL, npm_execpath. */
export const environment = env;

const running = new Set();

let stopping = false;

/**
 * Until the returned function is called, Ctrl-C ends the setup and its children at once: every step can be repeated.
 * Exit code 130.
 */
export function endOnSignal() {
  const end = () => stop(130);
  process.on("SIGINT", end);
  process.on("SIGTERM", end);
  return () => {
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
  };
}

/** Ends the setup and every command it still runs. */
export function stop(exitCode) {
  stopping = true;
  for (const child of running) child.kill("SIGTERM");
  process.exit(exitCode);
}

/** The first of `names` on PATH as an absolute path, or undefined. */
export function which(...names) {
  for (const name of names) {
    for (const folder of (environment.PATH ?? "").split(delimiter)) {
      const path = join(folder, name);
      if (folder !== "" && isExecutable(path)) return path;
    }
  }
  return undefined;
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * Runs a command to its end; standard input is closed, so nothing can ask a question.
 * Returns {code, output}; output holds stdout and stderr together. A command that cannot be started has code 127.
 */
export function run(command, args, { cwd, extraEnv = {} } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...environment, ...extraEnv },
    });
    running.add(child);
    let output = "";
    const collect = (chunk) => {
      output = (output + chunk).slice(-200_000);
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    const finish = (code, extra = "") => {
      running.delete(child);
      if (!stopping) resolve({ code, output: output + extra });
    };
    child.on("error", (error) => finish(127, `${error.message}\n`));
    child.on("close", (code) => finish(code ?? 1));
  });
}

/** As `run`, but a failure throws an error with the end of the output. Returns the output. */
export async function must(command, args, options) {
  const { code, output } = await run(command, args, options);
  if (code !== 0)
    throw new Error(`${command} ${args.join(" ")} failed (${code}):\n${tail(output, 30)}`);
  return output;
}

/** The last lines of an output. */
export function tail(output, lines = 15) {
  return output.trimEnd().split("\n").slice(-lines).join("\n");
}
