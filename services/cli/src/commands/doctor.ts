/** `paddock doctor`: what this machine has for a run, and the remedy for what it lacks. */
import { join, resolve } from "node:path";
import { check, type Finding } from "../doctor/check.js";
import {
  checkCollectives,
  checkDataset,
  checkDisk,
  checkEngines,
  checkMemory,
  checkNode,
  checkPort,
  checkRedisRoute,
  checkStorage,
} from "../doctor/checks.js";
import type { Io } from "../io.js";
import { loadPlanned } from "../plan/load-planned.js";
import { type RedisFlags, redisUrlOf } from "../security/flags.js";

export interface DoctorFlags extends RedisFlags {
  readonly runDir: string;
  readonly data?: string;
  readonly port: number;
  /** Run spec, or official config, whose memory and checkpoint.storage are looked at. */
  readonly spec?: string;
  readonly workers?: number;
  readonly json?: boolean;
}

/** Returns the exit code: 0 when everything that a run needs works, else 3. */
export async function doctorCommand(flags: DoctorFlags, io: Io): Promise<number> {
  const runDir = resolve(io.cwd, flags.runDir);
  const redisUrl = await redisUrlOf(flags, io);
  const findings = [
    await check("node", checkNode),
    await check("engine", checkEngines),
    await check("exchange", checkCollectives),
    await check("disk", () => checkDisk(runDir)),
    await check("redis", () => checkRedisRoute(redisUrl, join(runDir, `.doctor-${process.pid}`))),
    await check("dataset", () => checkDataset(flags.data, io.cwd)),
    await check("port", () => checkPort("127.0.0.1", flags.port)),
    ...(await specFindings(flags, io)),
  ];
  const ok = findings.every((finding) => finding.ok);
  io.out(flags.json ? `${JSON.stringify({ ok, findings })}\n` : findings.map(line).join(""));
  return ok ? 0 : 3;
}

/** A plan per stage; errors of the spec itself are wrong use, and thrown. */
async function specFindings({ spec, workers }: DoctorFlags, io: Io): Promise<Finding[]> {
  if (spec === undefined) return [];
  const flags = workers === undefined ? {} : { workers };
  const plans = await loadPlanned(spec, { overrides: [], flags, cwd: io.cwd });
  const storages = new Set(plans.map(({ storage }) => storage));
  return await Promise.all([
    ...plans.map((plan) => check("memory", () => checkMemory(plan))),
    ...[...storages].flatMap((place) =>
      place === null ? [] : [check("storage", () => checkStorage(place))],
    ),
  ]);
}

function line({ name, ok, detail, remedy }: Finding): string {
  const mark = ok ? "ok    " : "FAILED";
  const advice = remedy === "" ? "" : `\n                  ${ok ? "note" : "remedy"}: ${remedy}`;
  return `${mark}  ${name.padEnd(8)}  ${detail}${advice}\n`;
}
