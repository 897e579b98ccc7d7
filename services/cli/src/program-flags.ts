/** Flags that several commands share, and the values that flags take. */
import { type WeightFormat, weightFormats } from "@paddock/contract";
import { type Command, InvalidArgumentError, Option } from "commander";
import { withRedisFlags, withSecurityFlags, withTlsFlag } from "./security/commands.js";

/** Flags that say what an official config leaves to its launcher and to the machine. */
export function withOfficialFlags(command: Command): Command {
  return command
    .option("--workers <W>", "worker processes, at most the logical ranks", positive)
    .option("--engine <E>", "auto, torch, tensorflow or wasm")
    .option("--data <dir>", "folder of the training images")
    .option(
      "--logical-ranks <L>",
      "official configs: ranks that train.batch_size_per_gpu is of (default: the workers)",
      positive,
    )
    .addOption(
      new Option("--official <project>", "official configs: whose the file is").choices([
        "dinov2",
        "dinov3",
      ]),
    )
    .addOption(
      new Option("--precision <P>", "official configs: instead of compute_precision").choices([
        "fp32",
        "bf16",
        "fp16",
      ]),
    )
    .option("--allow-unknown", "official configs: ignore keys that no official config has");
}

/** How a command finds the run that it speaks to. */
export function withTarget(command: Command): Command {
  return withTlsFlag(command)
    .option("--coordinator <host:port>", "speak to this coordinator instead")
    .option("--json", "as one JSON object");
}

/** Flags of every command that runs a coordinator. */
export function withRunFlags(command: Command, named = true): Command {
  if (named) command.option("--run-dir <dir>", "run directory (default: runs/<name>-<time>)");
  return withSecurityFlags(withRedisFlags(command))
    .option("--port <P>", "port of the coordinator, 0 for any", port, 0)
    .option("--metrics-port <P>", "port of its /metrics, 0 for any", port, 0)
    .option("--json", "one JSON object per committed step and event on stdout");
}

function integer(text: string, low: number, high: number, what: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < low || value > high || text.trim() === "") {
    throw new InvalidArgumentError(`expected ${what}, received "${text}"`);
  }
  return value;
}
export const positive = (text: string): number => integer(text, 1, 2 ** 31, "an integer from 1");
function oneOf<T extends string>(text: string, known: readonly T[]): T {
  const found = known.find((name) => name === text);
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`expected ${known.join(", ")}, received "${text}"`);
}
export const weightFormat = (text: string): WeightFormat => oneOf(text, weightFormats);
export const side = (text: string): "student" | "teacher" => oneOf(text, ["student", "teacher"]);
export const natural = (text: string): number =>
  integer(text, 0, Number.MAX_SAFE_INTEGER, "an integer from 0");
export const port = (text: string): number => integer(text, 0, 65535, "a port from 0 to 65535");
