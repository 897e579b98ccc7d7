/** `paddock scale`, `pause`, `unpause` and `cancel`: what a run that is going is told. */
import { join, resolve } from "node:path";
import { PaddockError } from "@paddock/contract";
import { type Run, RunService } from "@paddock/proto";
import { grpcClient } from "@paddock/service-kit/client";
import type { Io } from "../io.js";
import { newestRunDir, readJson } from "../run/run-directory.js";
import { clientTls, type TlsFlags } from "../security/client-tls.js";
import { resolveStage } from "../stages/stage-folders.js";

export interface SteerFlags extends TlsFlags {
  readonly runDir?: string;
  readonly coordinator?: string;
  readonly json?: boolean;
}

export type Order =
  | { readonly kind: "scale"; readonly workers: number }
  | { readonly kind: "pause" | "unpause" | "cancel" };

const answerTimeoutMs = 10_000;

/** Gives the order and says what the coordinator answers. Returns the exit code. */
export async function steerCommand(order: Order, flags: SteerFlags, io: Io): Promise<number> {
  const { address, noted } = await targetOf(flags, io);
  const tls = clientTls(flags, io, noted);
  const client = grpcClient(address, RunService, { unreachable: "run-failed", tls });
  const options = { timeoutMs: answerTimeoutMs };
  const request = { runId: "" };
  const give = async (): Promise<Run> => {
    switch (order.kind) {
      case "scale":
        return await client.scale({ ...request, workers: order.workers }, options);
      case "pause":
        return await client.pause(request, options);
      case "unpause":
        return await client.resume(request, options);
      case "cancel":
        return await client.cancel(request, options);
    }
  };
  try {
    const run = await give();
    io.out(flags.json ? `${JSON.stringify({ order, ...run })}\n` : `${answerTo(order, run)}\n`);
    return 0;
  } finally {
    client.close();
  }
}

function answerTo(order: Order, run: Run): string {
  const { runId, step, steps, workers } = run;
  const at = `${runId}, step ${step} of ${steps}`;
  switch (order.kind) {
    case "scale": {
      const missing = order.workers - workers.length;
      const wait = missing > 0 ? `; ${missing} of them have yet to join: paddock worker` : "";
      return `${at}: ${order.workers} workers from the next step on${wait}`;
    }
    case "pause":
      return `${at}: paused; nothing is committed until: paddock unpause`;
    case "unpause":
      return `${at}: goes on`;
    case "cancel":
      return `${at}: ends after the step in progress and its checkpoint`;
  }
}

/** The coordinator that is named, or that of the run. */
async function targetOf(
  { coordinator, runDir }: SteerFlags,
  io: Io,
): Promise<{ readonly address: string; readonly noted?: { readonly tlsDir?: string } }> {
  if (coordinator !== undefined) return { address: coordinator };
  const named = runDir === undefined ? await newestRunDir(io.cwd) : resolve(io.cwd, runDir);
  const note = join(await resolveStage(named), "coordinator.json");
  const read = await readJson(note).catch((cause: unknown) => {
    throw new PaddockError(
      "not-found",
      `expected the address of a coordinator in ${note}, received none; name it with --coordinator HOST:PORT`,
      { cause },
    );
  });
  const noted = read as { address: string; tlsDir?: string };
  return { address: noted.address, noted };
}
