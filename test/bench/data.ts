/** Batches of crops and masks per second: the demo's small grey pictures, and JPEG photographs with the official crops. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { type Bench, type BenchContext, isAsked } from "./harness/bench.js";
import { findPython } from "./harness/python.js";
import { rowOf } from "./harness/rows.js";
import { type Answer, alternate, openOurs, openPeer, pick, type Side } from "./harness/sides.js";

const cases = [
  { name: "grey", text: "28x28 grey, 2x28 + 4x14 crops" },
  { name: "jpeg", text: "500x375 JPEG, 2x224 + 8x96 crops" },
] as const;

const numPhotos = 32;

export const dataBench: Bench = {
  name: "data",
  summary:
    "images/s of decoding, crops and masks on one data thread, against Pillow where a python has it",
  async run(context) {
    const python = findPython(context.python, ["PIL", "numpy"]);
    if (!python) context.say("no python with Pillow and numpy: no peer");
    const folder = mkdtempSync(join(tmpdir(), "paddock-bench-"));
    try {
      await writePhotos(folder);
      for (const one of cases.filter(({ name }) => isAsked(context, name))) {
        await measure(context, one, folder, python);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

async function measure(
  context: BenchContext,
  { name, text }: (typeof cases)[number],
  folder: string,
  python: string | undefined,
): Promise<void> {
  const ours = openOurs("data-side.js", [name, folder]);
  const peer = python && openPeer(python, "data.py", [name, folder]);
  try {
    const answers = peer
      ? await alternate(ours, peer, { do: "run" }, context)
      : { ours: await alone(ours, context.pairs), peer: undefined };
    for (const [what, field] of [
      ["", "ms"],
      [", by CPU time", "cpuMs"],
    ] as const) {
      const rate = (answer: Answer): number =>
        (1000 * (answer["images"] ?? 0)) / (answer[field] ?? 0);
      const row = { bench: "data", case: `${text}${what}`, unit: "images/s" };
      context.row(rowOf(row, pick(answers.ours, rate), answers.peer && pick(answers.peer, rate)));
    }
  } finally {
    await Promise.all([ours.close(), peer ? peer.close() : undefined]);
  }
}

async function alone(side: Side, count: number): Promise<Answer[]> {
  await side.ask({ do: "run" });
  const answers: Answer[] = [];
  for (let i = 0; i < count; i++) answers.push(await side.ask({ do: "run" }));
  return answers;
}

/** Photographs of a kind: smooth shapes with edges and grain, as many bytes as real ones of that size. */
async function writePhotos(folder: string): Promise<void> {
  const [width, height, channels] = [500, 375, 3 as const];
  for (let n = 0; n < numPhotos; n++) {
    const pixels = Uint8Array.from({ length: width * height * channels }, (_, i) => {
      const [c, x, y] = [i % 3, Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
      const shape = Math.hypot(x - 180 - 5 * n, y - 190 + 3 * n) < 90 + 2 * n ? 50 : 0;
      const wave = 40 * Math.sin((x + 13 * n) / (11 + c)) * Math.cos(y / (17 - c));
      const grain = ((Math.imul(i + n, 0x9e3779b1) >>> 24) - 128) / 9;
      return Math.max(0, Math.min(255, 110 + shape + wave + grain));
    });
    const image = sharp(pixels, { raw: { width, height, channels } });
    writeFileSync(join(folder, `photo-${n}.jpg`), await image.jpeg({ quality: 92 }).toBuffer());
  }
}
