/** Recorded draws of a mask generator, given out again. */
import type { MaskDraws } from "@paddock/data";
import type { Check } from "../check.js";
import type { Golden } from "../file.js";

const uniformKind = 0;
const integerKind = 1;
const shuffleKind = 2;

export interface Replay {
  readonly draws: MaskDraws;
  /** Reports whether all recorded draws have been asked for, and none beyond. */
  end(): void;
}

/**
 * Answers with recorded draws (rows [kind, a, b, result]) and reports when they are asked for in another order or with other bounds.
 * `added` names the cells that complete masks: one tensor, or one per mask with its number behind a dot; masks that need none have none.
 */
export function replayOf(
  golden: Golden,
  check: Check,
  what: string,
  recorded: {
    readonly draws: string;
    readonly shuffle?: string;
    readonly added: string;
  },
): Replay {
  const rows = golden.has(recorded.draws) ? golden.f64(recorded.draws) : new Float64Array();
  const added = golden
    .names(recorded.added)
    .filter((name) => /^(\.\d+)?$/.test(name.slice(recorded.added.length)))
    .sort((a, b) => Number(a.split(".").at(-1)) - Number(b.split(".").at(-1)));
  let at = 0;
  const next = (kind: number, a: number, b: number | null): number => {
    const row = rows.subarray(4 * at, 4 * at + 4);
    at++;
    check.equal(`${what} draw ${at} kind`, kind, row[0] ?? null);
    // The reference computes some bounds in single precision.
    const bounds = b === null ? [a] : [a, b];
    check.close(
      `${what} draw ${at} bounds`,
      bounds,
      row.subarray(1, 1 + bounds.length),
      (largest) => 1e-6 * Math.max(1, largest),
    );
    return row[3] ?? Number.NaN;
  };
  return {
    draws: {
      uniform: (low, high) => next(uniformKind, low, high),
      integer: (low, high) => next(integerKind, low, high),
      order(n) {
        next(shuffleKind, n, null);
        return golden.i32(recorded.shuffle as string);
      },
      choose(candidates, count) {
        const name = added.shift();
        const cells = name === undefined ? [] : Array.from(golden.i32(name));
        check.equal(`${what} cells added`, cells.length, count);
        check.holds(
          what,
          cells.every((cell) => candidates.includes(cell)),
          "added cells are taken",
        );
        return cells;
      },
    },
    end() {
      check.equal(`${what} draws`, at, rows.length / 4);
      check.equal(`${what} cells left`, added, []);
    },
  };
}
