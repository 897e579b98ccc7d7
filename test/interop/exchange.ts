/** One exchange of models with the Python side: files out, features in, comparison. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import * as path from "node:path";
import { layoutOf, parseRunSpec, type RunSpec, weightFormats } from "@paddock/contract";
import { describeWeights } from "@paddock/worker";
import { paddock } from "../support/paddock.js";
import type { Exported, Foreign } from "./models.js";
import { loadedWeights, movedWeights, paddockFeatures, randomImage, writeRun } from "./weights.js";

/** Greatest difference of any feature; features are about 1 in size. */
export const tolerance = 1e-4;

interface Case {
  readonly name: string;
  readonly kind: string;
  readonly folder: string;
  readonly size: number;
  readonly channels: number;
  /** Features before patches: cls and registers. */
  ours(): Promise<{ readonly features: Float32Array; readonly spec: RunSpec }>;
  readonly more: Readonly<Record<string, unknown>>;
}

interface Result {
  readonly name: string;
  readonly error: string | null;
  readonly complaints: readonly string[];
}

export class Exchange {
  readonly #folder: string;
  readonly #cases: Case[] = [];
  #results: readonly Result[] = [];

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Exports both sides of a run's checkpoint: the teacher in every format, the student in one. */
  async exportModel({ name, spec, transformers }: Exported): Promise<void> {
    const runDir = path.join(this.#folder, name);
    const layout = layoutOf(spec);
    const weights = {
      student: movedWeights(spec, layout, 1),
      teacher: movedWeights(spec, layout, 2),
    };
    await writeRun(runDir, spec, weights);
    const { size } = spec.crops.global;
    const { channels } = spec.model;
    const image = randomImage(size, channels).rows;
    for (const [side, format] of [
      ...weightFormats.map((format) => ["teacher", format] as const),
      ["student", "transformers"] as const,
    ]) {
      const folder = path.join(runDir, `${format}-${side}`);
      const args = ["export", runDir, "--format", format, "--side", side, "--out", folder];
      const { code, stderr } = await paddock(args);
      if (code !== 0) throw new Error(`paddock ${args.join(" ")}: ${stderr}`);
      const kind = format === "official" ? "load-timm-official" : `load-${format}`;
      this.#cases.push({
        name: `${name}-${format}-${side}`,
        kind,
        folder,
        size,
        channels,
        ours: async () => ({ features: await paddockFeatures(spec, weights[side], image), spec }),
        more: {
          expect: transformers,
          mean: spec.crops.mean,
          timmFolder: path.join(runDir, "timm-teacher"),
        },
      });
    }
  }

  /** A model that Python makes, and that Paddock then loads from what it saved. */
  orderModel({ name, kind, size, ...more }: Foreign): void {
    const folder = path.join(this.#folder, name);
    mkdirSync(folder);
    const image = randomImage(size, 3).rows;
    const ours = async () => {
      const file = path.join(folder, "model.safetensors");
      const { model, cropSize } = await describeWeights(file);
      const spec = parseRunSpec({
        steps: 1,
        batchPerRank: 2,
        model,
        data: { path: "none" },
        crops: {
          global: { size: cropSize ?? size, scale: [0.4, 1] },
          local: { size: Number(model["patchSize"]), scale: [0.1, 0.4] },
        },
      });
      const features = await paddockFeatures(spec, await loadedWeights(file, spec), image);
      return { features, spec };
    };
    this.#cases.push({ name, kind, folder, size, channels: 3, ours, more: { ...more, seed: 3 } });
  }

  /** Returns what it runs. */
  runPython(python: string): string {
    const cases = this.#cases.map(({ name, kind, folder, size, channels, more }) => {
      const file = path.join(this.#folder, `${name}.image`);
      writeFileSync(file, randomImage(size, channels).planes);
      return { name, kind, folder, image: { file, shape: [1, channels, size, size] }, ...more };
    });
    writeFileSync(path.join(this.#folder, "cases.json"), JSON.stringify(cases));
    const script = path.resolve(import.meta.dirname, "../../interop/side.py");
    const { status, stderr } = spawnSync(python, [script, this.#folder], { encoding: "utf8" });
    if (status !== 0) throw new Error(`${python} ${script}: ${stderr}`);
    const { versions, results } = JSON.parse(
      readFileSync(path.join(this.#folder, "results.json"), "utf8"),
    ) as { versions: Record<string, string>; results: Result[] };
    this.#results = results;
    return Object.entries(versions)
      .map((pair) => pair.join(" "))
      .join(", ");
  }

  /** Returns the number of failures. */
  async compare(print: (line: string) => void): Promise<number> {
    let failures = 0;
    for (const one of this.#cases) {
      const problem = await this.#compareOne(one).catch(
        (error: unknown) => (error as Error).message,
      );
      const isFine = typeof problem === "number";
      if (!isFine) failures++;
      print(
        `${isFine ? "ok  " : "FAIL"}  ${one.name}  ${isFine ? problem.toExponential(1) : problem}`,
      );
    }
    return failures;
  }

  /** The greatest difference, or what is wrong. */
  async #compareOne(one: Case): Promise<number | string> {
    const result = this.#results.find(({ name }) => name === one.name);
    if (!result) return "no result";
    if (result.error !== null) return result.error;
    if (result.complaints.length > 0) return `warned: ${result.complaints.join("; ")}`;
    const bytes = readFileSync(path.join(this.#folder, `${one.name}.features`));
    const theirs = new Float32Array(Uint8Array.from(bytes).buffer);
    const { features, spec } = await one.ours();
    const width = features.length / ((one.size / spec.model.patchSize) ** 2 + 1);
    const skipped = spec.model.registers * width;
    if (theirs.length !== features.length + skipped) {
      return `expected ${features.length + skipped} features, received ${theirs.length}`;
    }
    let worst = 0;
    for (let i = 0; i < features.length; i++) {
      const other = theirs[i < width ? i : i + skipped] as number;
      const difference = Math.abs((features[i] as number) - other);
      if (!(difference <= worst)) worst = difference;
    }
    return worst <= tolerance ? worst : `differs by ${worst}`;
  }
}
