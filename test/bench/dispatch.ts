/** What an op costs before it computes anything: tensors of 4 elements, and a training pass with its dims shrunk to nothing. */
import type { Bench } from "./harness/bench.js";
import { pythonWithTorch } from "./harness/python.js";
import { rowOf } from "./harness/rows.js";
import { alternate, openOurs, openPeer, pick } from "./harness/sides.js";

/** [what, unit, our quantity, the peer's] */
const quantities = [
  ["raw addon call: add, free / torch.add", "us", "raw", "add"],
  ["engine.runKernel Add, dispose / torch.add", "us", "runKernel", "add"],
  ["tf.add, dispose / torch.add", "us", "tfAdd", "add"],
  ["tf.mul on the tape / torch.mul on the tape", "us", "taped", "taped"],
  ["mul chain, forward and backward, per mul", "us", "chain", "chain"],
  ["12 blocks forward+backward, dims ~ 0", "ms", "pass", "pass"],
] as const;

/** The best of so many passes is one measurement: interruptions only ever add time. */
const passes = 20;

export const dispatchBench: Bench = {
  name: "dispatch",
  summary:
    "overhead per op of addon, TF.js and tape, and host cost of a training pass, against eager PyTorch",
  async run(context) {
    const threads = [String(context.threads)];
    const ours = openOurs("dispatch-side.js", threads);
    const peer = openPeer(pythonWithTorch(context.python), "dispatch.py", threads);
    try {
      const answers = await alternate(ours, peer, { do: "run", passes }, context);
      for (const [name, unit, mine, theirs] of quantities) {
        const oursOf = pick(answers.ours, (answer) => answer[mine] ?? Number.NaN);
        const peerOf = pick(answers.peer, (answer) => answer[theirs] ?? Number.NaN);
        context.row(rowOf({ bench: "dispatch", case: name, unit }, oursOf, peerOf));
      }
    } finally {
      await Promise.all([ours.close(), peer.close()]);
    }
  },
};
