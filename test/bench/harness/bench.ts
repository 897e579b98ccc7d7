/** What a bench is, and what it is given. */
import type { Row } from "./rows.js";

export interface BenchContext {
  /** Threads of one op, on both sides. */
  readonly threads: number;
  /** Where both sides compute: "cpu", "cuda". */
  readonly device: string;
  /** Of products, on both sides; the peer by torch.autocast. */
  readonly precision: "fp32" | "bf16" | "fp16";
  /** Images of a step, sequences of a block. */
  readonly batch: number;
  /** Measurements of each side; sides take turns. */
  readonly pairs: number;
  /** Cases to run; all if empty. */
  readonly cases: readonly string[];
  /** Also say where the time goes, where a bench knows. */
  readonly profile: boolean;
  /** A python to look for the peers' packages in first. */
  readonly python: string | undefined;
  /** Another built checkout of Paddock to compare with. */
  readonly before: string | undefined;
  /** Prints a result. */
  readonly row: (row: Row) => void;
  /** Prints a remark for people; on stderr, so that JSON stays clean. */
  readonly say: (text: string) => void;
}

export interface Bench {
  readonly name: string;
  /** One line for the list. */
  readonly summary: string;
  readonly run: (context: BenchContext) => Promise<void>;
}

/** What a bench needs is not on this machine: exit code 3, and this message. */
export class Unavailable extends Error {}

/** Whether a case was asked for. */
export function isAsked(context: BenchContext, name: string): boolean {
  return context.cases.length === 0 || context.cases.includes(name);
}
