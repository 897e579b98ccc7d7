/** A full disk: what has no room now is written again until it has. A run of weeks does not end because a partition was full for a minute. */
import { setTimeout as sleep } from "node:timers/promises";
import { PaddockError } from "@paddock/contract";
import type { Logger } from "@paddock/service-kit";
import type { DiskFull } from "../api/diagnosis.js";

export interface PatientDisk {
  /** null: what was to be written is. */
  readonly full: DiskFull | null;
  /**
   * Does it until there is room; it must leave nothing behind when it rejects. Resolves with the milliseconds that this took beyond the first try.
   * Rejects with what is no lack of room, and with that too after `giveUp`.
   */
  write(work: () => Promise<void>): Promise<number>;
  /** Nobody waits any longer. */
  giveUp(): void;
}

export function patientDisk(o: {
  readonly log: Logger;
  readonly now: () => number;
  /** When `full` has changed. */
  readonly onChange: () => void;
  /** Between two tries. */
  readonly retryMs: number;
}): PatientDisk {
  const { log, now, onChange, retryMs } = o;
  const givenUp = new AbortController();
  let full: DiskFull | null = null;

  const become = (next: DiskFull | null): void => {
    full = next;
    onChange();
  };

  /** Whether it was written. */
  async function isWritten(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      if (!isFull(error) || givenUp.signal.aborted) throw error;
      const reason = PaddockError.from(error).message;
      if (!full) {
        log.error({ reason }, "the disk is full: the run waits for room");
        become({ sinceMs: now(), reason });
      }
      return false;
    }
  }

  return {
    get full() {
      return full;
    },
    async write(work) {
      const startMs = now();
      try {
        while (!(await isWritten(work))) {
          await sleep(retryMs, undefined, { signal: givenUp.signal }).catch(() => undefined);
        }
        if (!full) return 0;
        const ms = now() - startMs;
        log.warn({ ms }, "the disk has room again: the run goes on");
        return ms;
      } finally {
        if (full) become(null);
      }
    },
    giveUp: () => givenUp.abort(),
  };
}

function isFull(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT";
}
