/** Structured logs: one JSON object per line, one line per event, never on stdout (that belongs to results). */
import { type Logger, pino } from "pino";

export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LoggerOptions {
  /** Role of the process: "coordinator", "worker" ... */
  readonly name: string;
  readonly level: LogLevel;
  /** Appended to; its folder is made. Absent: stderr. */
  readonly file?: string;
}

/**
 * Writes synchronously, so that the last lines before a crash are there: log per segment and per failure, not per step.
 */
export function createLogger({ name, level, file }: LoggerOptions): Logger {
  const destination = pino.destination({ dest: file ?? 2, mkdir: true, append: true, sync: true });
  // Nothing ends because a line of the log finds no room on the disk.
  destination.on("error", () => undefined);
  return pino({ name, level, timestamp: pino.stdTimeFunctions.isoTime }, destination);
}
