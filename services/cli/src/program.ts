/** The commands and flags of `paddock`, and what their failures mean for its exit code. */
import { readFileSync } from "node:fs";
import { PaddockError } from "@paddock/contract";
import { Command, CommanderError } from "commander";
import type { Io } from "./io.js";
import {
  natural,
  port,
  positive,
  side,
  weightFormat,
  withOfficialFlags,
  withRunFlags,
  withTarget,
} from "./program-flags.js";
import { addSecurityCommands, withRedisFlags, withTlsFlag } from "./security/commands.js";

/** The exit code of `paddock <argv>`: 0 done, 2 wrong use or spec, 3 environment, 4 run failed, 130 interrupted after a drain. */
export async function runCli(argv: readonly string[], io: Io): Promise<number> {
  let code = 0;
  const program = buildProgram(io, (result) => {
    code = result;
  });
  try {
    await program.parseAsync(argv, { from: "user" });
    return code;
  } catch (error) {
    return exitCodeOf(error, io);
  }
}

/** Commander has printed its own errors already; help and version are its errors with exit code 0. */
function exitCodeOf(error: unknown, io: Io): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const known = PaddockError.from(error);
  io.err(`paddock: ${known.message}\n`);
  if (known.code === "internal" && error instanceof Error) io.err(`${error.stack}\n`);
  return known.exitCode;
}

const trainExamples = `
Examples:
  paddock train deploy/runs/fashion-mnist.yaml --workers 2 optimizer.clipNorm=1
  paddock train deploy/runs/four-stages.yaml
  paddock train --config vitl16_short.yaml --data images/train student.arch=vit_small train.batch_size_per_gpu=8`;

const checkpointExamples = `
Examples:
  paddock checkpoint list
  paddock checkpoint verify runs/vit-small --step 5000 --json
  paddock checkpoint repair runs/vit-small
  paddock checkpoint prune runs/vit-small --keep 1 --keep-every 10000 --dry-run

Exit codes: 0 done, 2 wrong use or no such run, 3 the disk refused, 4 a checkpoint is damaged.`;

const whyExamples = `
Exit code 4: nothing will happen unless somebody does what "next" says.

Examples:
  paddock why
  paddock why runs/vit-small --json
  paddock why --coordinator 10.0.0.5:7070`;

const scaleExamples = `
Examples:
  paddock scale 8
  paddock scale 4 runs/vit-small --json
  paddock scale 4 --coordinator 10.0.0.5:7070`;

const coordinatorExamples = `
Examples:
  paddock coordinator run.yaml --host 0.0.0.0 --port 7070 --tls-dir tls --redis-file redis.url
  paddock coordinator run.yaml --host 10.0.0.5 --port 7070 --insecure-bind --join-token-file join.token`;

const recipeExamples = `
Examples:
  paddock recipe vitl16_short.yaml --logical-ranks 32
  paddock recipe deploy/runs/fashion-mnist.yaml loss.koleo=0`;

const planExamples = `
Nothing is started. A spec with stages gives one plan per stage.

Examples:
  paddock plan deploy/runs/fashion-mnist.yaml --workers 3
  paddock plan deploy/runs/dino-vits16.yaml --workers 8 --images 1281167 fleet.redundancy=shadow
  paddock plan vitl16_short.yaml --logical-ranks 32 --workers 8 --json`;

const doctorExamples = `
Examples:
  paddock doctor
  paddock doctor --spec run.yaml --workers 4   # also whether the run's memory fits, with all workers on this machine`;

function version(): string {
  const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

/** Each command is loaded when it is called: one that only asks a coordinator must not wait for the engine's code. */
function buildProgram(io: Io, done: (code: number) => void): Command {
  const program = new Command("paddock")
    .description("Pretrain Vision Transformers without labels on a fleet of workers.")
    .version(version(), "-V, --version", "which release this is")
    .exitOverride()
    .configureOutput({ writeOut: (text) => io.out(text), writeErr: (text) => io.err(text) })
    .showHelpAfterError("(paddock --help lists the commands)");
  const add = (name: string, description: string): Command =>
    program.command(name).description(description);

  withOfficialFlags(
    withRunFlags(add("train", "train a run spec on this machine: Redis, coordinator and workers")),
  )
    .argument("[spec]", "run spec, or a spec with stages: .yaml, .json or .ts")
    .argument("[overrides...]", "fields to set: a.b=c, values as YAML")
    .option("--config <file>", "a training config of DINOv2 or DINOv3 instead of a run spec")
    .option("--verbose", "with --config: print the whole effective recipe")
    .addHelpText("after", trainExamples)
    .option("--steps <N>", "optimizer steps", positive)
    .option("--seed <S>", "seed of everything random", natural)
    .option("--exchange-dtype <dtype>", "fp32 or fp16")
    .option("--resume", "continue the run in --run-dir (default: the newest of this name)")
    .action(async (spec, overrides, flags) =>
      done(
        await (await import("./commands/train.js")).trainCommand({ spec, overrides, ...flags }, io),
      ),
    );

  withOfficialFlags(
    add("recipe", "the effective recipe of a config: values, where they come from, warnings"),
  )
    .argument("<file>", "a training config of DINOv2 or DINOv3, or a run spec")
    .argument("[overrides...]", "keys to set: a.b=c, values as YAML")
    .option("--json", "as one JSON object, the run spec included")
    .addHelpText("after", recipeExamples)
    .action(async (file, overrides, flags) =>
      done(
        await (await import("./commands/recipe.js")).recipeCommand(
          { file, overrides, ...flags },
          io,
        ),
      ),
    );

  withOfficialFlags(
    add("plan", "what a run will need: ranks, memory and traffic of each worker, steps, disk"),
  )
    .argument("<file>", "a run spec, also with stages, or a training config of DINOv2 or DINOv3")
    .argument("[overrides...]", "fields to set: a.b=c, values as YAML")
    .option("--images <N>", "training images, for epochs (IDX files are counted)", positive)
    .option("--json", "as one JSON object")
    .addHelpText("after", planExamples)
    .action(async (file, overrides, flags) =>
      done(
        await (await import("./commands/plan.js")).planCommand({ file, overrides, ...flags }, io),
      ),
    );

  withOfficialFlags(
    withRunFlags(add("coordinator", "only the coordinator of a run: workers join from elsewhere")),
  )
    .argument("[spec]", "run spec: .yaml, .json or .ts")
    .argument("[overrides...]", "fields to set: a.b=c, values as YAML")
    .option("--config <file>", "a training config of DINOv2 or DINOv3 instead of a run spec")
    .option("--verbose", "with --config: print the whole effective recipe")
    .option(
      "--host <address>",
      "address to listen on; others than loopback need --tls-dir",
      "127.0.0.1",
    )
    .addHelpText("after", coordinatorExamples)
    .option("--resume", "continue the run in --run-dir")
    .action(async (spec, overrides, flags) =>
      done(
        await (await import("./commands/train.js")).coordinatorCommand(
          { spec, overrides, ...flags },
          io,
        ),
      ),
    );

  add("worker", "one worker process; its own flags: paddock worker --help")
    .allowUnknownOption()
    .helpOption(false)
    .argument("[flags...]")
    .action(async (flags) =>
      done(await (await import("./commands/worker.js")).workerCommand(flags, io)),
    );

  withRunFlags(
    add("resume", "continue a run, or its stages, exactly from the last checkpoint"),
    false,
  )
    .argument("<run-dir>")
    .option("--workers <W>", "worker processes: any number up to logicalRanks", positive)
    .action(async (runDir, flags) =>
      done(await (await import("./commands/train.js")).resumeCommand({ runDir, ...flags }, io)),
    );

  withTlsFlag(add("status", "where a run stands"))
    .argument("[run-dir]", "default: the newest in runs/")
    .option("--coordinator <host:port>", "ask this coordinator instead")
    .option("--json", "as one JSON object")
    .action(async (runDir, flags) =>
      done(await (await import("./commands/status.js")).statusCommand({ runDir, ...flags }, io)),
    );

  withTarget(add("why", "why a run does not go on: whom it waits for, until when, what comes next"))
    .argument("[run-dir]", "default: the newest in runs/")
    .addHelpText("after", whyExamples)
    .action(async (runDir, flags) =>
      done(await (await import("./commands/why.js")).whyCommand({ runDir, ...flags }, io)),
    );
  withTarget(add("scale", "another number of workers, from the next step on"))
    .argument("<workers>", "from 1 to the logical ranks", positive)
    .argument("[run-dir]", "default: the newest in runs/")
    .addHelpText("after", scaleExamples)
    .action(async (workers, runDir, flags) =>
      done(
        await (await import("./commands/steer.js")).steerCommand(
          { kind: "scale", workers },
          { runDir, ...flags },
          io,
        ),
      ),
    );
  for (const [kind, description] of [
    ["pause", "commit nothing until unpause; the workers keep their state"],
    ["unpause", "go on after a pause"],
    ["cancel", "finish the step in progress, write a checkpoint, end"],
  ] as const) {
    withTarget(add(kind, description))
      .argument("[run-dir]", "default: the newest in runs/")
      .action(async (runDir, flags) =>
        done(
          await (await import("./commands/steer.js")).steerCommand(
            { kind },
            { runDir, ...flags },
            io,
          ),
        ),
      );
  }

  addCheckpointCommands(
    add("checkpoint", "the checkpoints of a run: list, verify, repair, prune"),
    io,
    done,
  );

  add("eval", "measure a trained model")
    .command("knn")
    .description("weighted k-NN accuracy of the teacher in a run's last checkpoint")
    .argument("<run-dir>")
    .option("--data <dir>", "folder of the images, when it has moved")
    .option("--json", "as one JSON object")
    .action(async (runDir, flags) =>
      done(await (await import("./commands/eval-knn.js")).evalKnnCommand({ runDir, ...flags }, io)),
    );

  add("export", "a trained backbone for the official code, transformers or timm")
    .argument("<run-dir>")
    .requiredOption("--format <F>", "official, transformers or timm", weightFormat)
    .option("--side <S>", "student or teacher", side, "teacher")
    .option("--step <N>", "checkpoint of that many steps (default: the newest)", natural)
    .option("--out <dir>", "folder to make (default: <run-dir>/export/<format>-<side>-<step>)")
    .option("--force", "replace that folder")
    .option("--json", "as one JSON object")
    .action(async (runDir, flags) =>
      done(await (await import("./commands/export.js")).exportCommand({ runDir, ...flags }, io)),
    );

  add("import", "what a .safetensors of backbone weights is, and whether it loads")
    .argument(
      "<file>",
      "in official, transformers or timm names; or a folder with model.safetensors",
    )
    .option("--spec <file>", "run spec that it must fit")
    .option("--out <dir>", "also write it with official names into this new folder")
    .option("--grid <G>", "with --out: learned positions resampled to G x G patches", positive)
    .option("--force", "replace that folder")
    .option("--json", "as one JSON object")
    .action(async (file, flags) =>
      done(await (await import("./commands/import.js")).importCommand({ file, ...flags }, io)),
    );

  addSecurityCommands(program, io, done);

  withRedisFlags(
    add(
      "doctor",
      "check Node, engine, Redis, disk, dataset and ports, with a remedy for each failure",
    ),
  )
    .option("--run-dir <dir>", "where runs will be written", "runs")
    .option("--data <dir>", "folder of the training images")
    .option("--port <P>", "port of the coordinator to try", port, 0)
    .option(
      "--spec <file>",
      "run spec whose memory is compared with this machine's, and whose checkpoint.storage is tried",
    )
    .option("--workers <W>", "with --spec: workers on this machine (default: the spec's)", positive)
    .option("--json", "as one JSON object")
    .addHelpText("after", doctorExamples)
    .action(async (flags) =>
      done(await (await import("./commands/doctor.js")).doctorCommand(flags, io)),
    );

  add("report", "write report.html of a run again")
    .argument("<run-dir>")
    .action(async (runDir) =>
      done(await (await import("./commands/report.js")).reportCommand({ runDir }, io)),
    );

  return program;
}

function addCheckpointCommands(parent: Command, io: Io, done: (code: number) => void): void {
  parent.addHelpText("after", checkpointExamples);
  const add = (name: string, description: string): Command =>
    parent
      .command(name)
      .description(description)
      .argument("[run-dir]", "default: the newest in runs/")
      .option("--json", "as one JSON object")
      .addHelpText("after", checkpointExamples);
  add("list", "which there are, newest first, and whether they are complete").action(
    async (runDir, flags) =>
      done(
        await (await import("./commands/checkpoint.js")).listCheckpointsCommand(
          { runDir, ...flags },
          io,
        ),
      ),
  );
  add("verify", "read every byte, compare the hashes, and print a hash of the state")
    .option("--step <N>", "that of so many steps (default: all)", natural)
    .action(async (runDir, flags) =>
      done(
        await (await import("./commands/checkpoint.js")).verifyCheckpointsCommand(
          { runDir, ...flags },
          io,
        ),
      ),
    );
  add("repair", "write damaged files anew from their replicas (checkpoint.replicas of the run)")
    .option("--step <N>", "that of so many steps (default: all)", natural)
    .action(async (runDir, flags) =>
      done(
        await (await import("./commands/checkpoint.js")).repairCheckpointsCommand(
          { runDir, ...flags },
          io,
        ),
      ),
    );
  add("prune", "delete those that the run does not keep; not while it is running")
    .option("--keep <N>", "the newest so many stay (default: checkpoint.keep of the run)", positive)
    .option("--keep-every <S>", "and those of every so many steps (default: of the run)", natural)
    .option("--dry-run", "only say which")
    .action(async (runDir, flags) =>
      done(
        await (await import("./commands/checkpoint.js")).pruneCheckpointsCommand(
          { runDir, ...flags },
          io,
        ),
      ),
    );
}
