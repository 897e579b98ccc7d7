/** Log lines about callers that were turned away: who, from where, why. Bounded, as a caller can come as often as it likes. */

/** The part of a logger that is used here. */
export interface RefusalLogger {
  warn(fields: object, message: string): void;
}

export interface Refusal {
  /** Role and name as far as a certificate says them, else "unknown". */
  readonly who: string;
  /** Remote address. */
  readonly from: string;
  readonly why: string;
  /** The method that was called, if it came to that. */
  readonly call?: string;
}

export type ReportRefusal = (refusal: Refusal) => void;

const windowMs = 10_000;
const linesPerWindow = 20;

/** At most 20 lines in 10 s; the next line after that says how many were left out. */
export function refusalLog(
  logger: RefusalLogger | undefined,
  now: () => number = Date.now,
): ReportRefusal {
  let since = now();
  let lines = 0;
  let leftOut = 0;
  return (refusal) => {
    if (now() - since >= windowMs) {
      since = now();
      lines = 0;
    }
    if (++lines > linesPerWindow) {
      leftOut++;
      return;
    }
    const fields = leftOut > 0 ? { ...refusal, leftOut } : refusal;
    leftOut = 0;
    logger?.warn(fields, "refused");
  };
}
