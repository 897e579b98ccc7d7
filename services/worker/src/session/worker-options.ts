/** What a worker is started with, and how it ends. */
import type { RunSpec } from "@paddock/contract";
import type { createLogger } from "@paddock/service-kit";
import type { WorkerSecurity } from "./security.js";

export interface WorkerOptions {
  /** host:port of the coordinator. */
  readonly coordinator: string;
  /** Unique in the fleet. */
  readonly name: string;
  readonly engine: RunSpec["engine"]["name"];
  readonly threads: number;
  /** `cpu`, `cuda:<n>`; undefined: a GPU if the engine sees one. */
  readonly device: string | undefined;
  /** Which of this machine's workers this is, from 0: they take its GPUs in turn. */
  readonly localRank: number;
  /** `library`: flat vectors lie in the engine's library as on a GPU, also on a CPU. For tests. */
  readonly vectors?: "library";
  /** Comma-separated ids of samples to spoil. For tests. */
  readonly poison?: string | undefined;
  /** Address on which peers reach this worker. */
  readonly host: string;
  /** Absent: neither certificates nor a token, on this machine only. */
  readonly security?: WorkerSecurity | undefined;
  /** How long it looks for a coordinator that does not answer, its state kept; 0: not at all. */
  readonly reconnectSeconds: number;
  readonly logger: ReturnType<typeof createLogger>;
  /** Leaves the fleet when it fires: hands its shards over and ends. */
  readonly signal: AbortSignal;
}

export interface WorkerEnd {
  /** true: the run reached its last step. */
  readonly finished: boolean;
  readonly reason: string;
}
