/** The commands and flags that make a run safe to reach. */
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Io } from "../io.js";
import { type IssuedRole, issuedRoles } from "./issued-roles.js";

const certsExamples = `
Examples:
  paddock certs init --dir tls --host trainer.lab --host 10.0.0.5
  paddock certs issue worker --dir tls --out for-gpu-1 --name gpu-1
  paddock certs show --dir tls`;

const tokenExamples = `
Examples:
  paddock token create --out join.token              # for coordinator and workers: --join-token-file join.token
  paddock token create --run-dir runs/x --expires 2h # another one for a run that is going
Only its hash is kept, in <run-dir>/join-tokens; deleting that file ends the token.`;

/** `certs` and `token`. */
export function addSecurityCommands(program: Command, io: Io, done: (code: number) => void): void {
  const certs = program
    .command("certs")
    .description("certificates for a fleet: an authority, and one for each role")
    .addHelpText("after", certsExamples);
  withIssueFlags(certs.command("init"))
    .description("a new authority, and certificates of coordinator, worker and client")
    .option("--keep", "do nothing when the folder has an authority")
    .action(async (flags) => done(await (await import("./certs.js")).certsInit(flags, io)));
  withIssueFlags(certs.command("issue"))
    .description("another certificate of the authority, or a new one before the old one expires")
    .argument("<role>", issuedRoles.join(", "), issuedRole)
    .option("--name <name>", "for people and logs (default: the role)")
    .option("--out <dir>", "folder for its files and ca.crt (default: --dir)")
    .action(async (role, flags) =>
      done(await (await import("./certs.js")).certsIssue({ role, ...flags }, io)),
    );
  certs
    .command("show")
    .description("what lies in a folder, and until when it is good")
    .option("--dir <dir>", "folder of the certificates", "tls")
    .option("--json", "as one JSON object")
    .action(async (flags) => done(await (await import("./certs.js")).certsShow(flags, io)));

  program
    .command("token")
    .description("join tokens: what lets a worker into a run")
    .addHelpText("after", tokenExamples)
    .command("create")
    .description("a new join token, printed once")
    .option("--expires <time>", "how long it is good: 30m, 24h, 7d", duration, 7 * 86_400_000)
    .option("--run-dir <dir>", "let it into the run of this directory")
    .option("--out <file>", "write it there, for our eyes only, instead of printing it")
    .action(async (flags) => done(await (await import("./token.js")).tokenCreate(flags, io)));
}

function withIssueFlags(command: Command): Command {
  return command
    .option("--dir <dir>", "folder of the authority", "tls")
    .option("--days <N>", "how long certificates are good", days, 365)
    .option(
      "--host <name>",
      "another DNS name or IP address of the machine, for programs that check those; may be repeated",
      (name: string, known: readonly string[] = []) => [...known, host(name)],
    );
}

/** Of every command that speaks with a coordinator. */
export function withTlsFlag(command: Command): Command {
  return command.option(
    "--tls-dir <dir>",
    "folder with ca.crt and <role>.crt, <role>.key (default: PADDOCK_TLS_DIR)",
  );
}

/** Of every command that runs one. */
export function withSecurityFlags(command: Command): Command {
  return withTlsFlag(command)
    .option(
      "--join-token-file <file>",
      "workers must have this token (default: PADDOCK_JOIN_TOKEN)",
    )
    .option("--metrics-host <address>", "address of its /metrics (default: 127.0.0.1)")
    .option("--insecure-bind", "listen without TLS where other machines reach it");
}

/** Where passwords come from without being seen in a list of processes. */
export function withRedisFlags(command: Command): Command {
  return command
    .option(
      "--redis <url>",
      "Redis to use (default: PADDOCK_REDIS_URL, REDIS_URL, else one is started)",
    )
    .addOption(
      new Option("--redis-file <file>", "file that holds the URL, password and all").conflicts(
        "redis",
      ),
    )
    .option("--redis-ca <file>", "rediss://: authority of its certificate, PEM (PADDOCK_REDIS_CA)");
}

function issuedRole(text: string): IssuedRole {
  const found = issuedRoles.find((role) => role === text);
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`expected ${issuedRoles.join(", ")}, received "${text}"`);
}

function days(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1 && value <= 3_650) return value;
  throw new InvalidArgumentError(`expected days from 1 to 3650, received "${text}"`);
}

function host(text: string): string {
  if (/^[\w.:-]{1,253}$/.test(text)) return text;
  throw new InvalidArgumentError(`expected a DNS name or an IP address, received "${text}"`);
}

const units: Readonly<Record<string, number>> = { s: 1e3, m: 6e4, h: 3.6e6, d: 8.64e7 };

function duration(text: string): number {
  const [, count, unit] = /^(\d{1,5})([smhd])$/.exec(text) ?? [];
  if (count !== undefined && unit !== undefined) return Number(count) * (units[unit] as number);
  throw new InvalidArgumentError(`expected a time such as 30m, 24h or 7d, received "${text}"`);
}
