/** What chance decided in a recorded run: index sets of stochastic depth, changes of rotary coordinates. */
import { drawSubset, type RopeDraw } from "@paddock/model";
import type { Draws } from "./backbone-pass.js";
import type { Golden } from "./file.js";

const branches = ["attn", "ffn"] as const;
/** Crop groups are numbered, or named. */
const groups = ["global", "local"] as const;

/**
 * Replays `inputs.indices.block<i>.<attn|ffn>.<group>` and `inputs.rope.block<i>.<group>.<shift|log_jitter|log_rescale>` in training. A block
 * without index sets drops nothing, coordinates without a draw stay.
 */
export function recordedDraws(golden: Golden): Draws {
  const rateOf = (block: number): number => {
    const { config } = golden;
    const rate = config.rates_per_block?.[block] ?? config.drop_path ?? config.drop_path_rate ?? 0;
    return Number(rate);
  };
  return {
    training: true,
    rows: (block, branch, sequences) =>
      drawSubset(sequences, rateOf(block), (group, _count, keep) => {
        const indices = golden.i32(
          named(golden, `inputs.indices.block${block}.${branches[branch]}`, group, ""),
        );
        if (indices.length !== keep) {
          throw new RangeError(`expected ${keep} sequences, received ${indices.length}`);
        }
        return indices;
      }),
    rope: (block, group) =>
      ropeDraw(golden, (part) => named(golden, `inputs.rope.block${block}`, group, part)),
  };
}

function named(golden: Golden, prefix: string, group: number, part: string): string {
  const suffix = part && `.${part}`;
  const names = [`${prefix}.${group}${suffix}`, `${prefix}.${groups[group]}${suffix}`];
  return names.find((name) => golden.has(name)) ?? (names[0] as string);
}

/** One draw of coordinates whose parts are named by `nameOf`; what was not enabled is not recorded. */
export function ropeDraw(golden: Golden, nameOf: (part: string) => string): RopeDraw {
  const pair = (part: string): [number, number] => {
    const name = nameOf(part);
    const [y = 0, x = 0] = golden.has(name) ? golden.f32(name) : [];
    return [y, x];
  };
  return {
    shift: pair("shift"),
    logJitter: pair("log_jitter"),
    logRescale: pair("log_rescale")[0],
  };
}
