/**
 * `npm run test:interop`: backbones exchanged with the real transformers and timm. What Paddock exports loads there without a warning, and
 * what they save loads in Paddock; features of the same image agree. Exit codes: 0 all agree, or skipped where there is no pip; 1 not.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { parseArgs } from "node:util";
import { openEngine } from "@paddock/engine";
import { Exchange, tolerance } from "./exchange.js";
import { exportedModels, foreignModels } from "./models.js";
import { findPython } from "./python.js";

const usage = `npm run test:interop [-- options]

  --python FILE   interpreter with torch, transformers and timm (default: made in .interop/)
  --engine NAME   torch, tensorflow, wasm or auto (default)
  --only TEXT     models whose name contains it
  --keep          leave the exchanged files where they are
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      python: { type: "string" },
      engine: { type: "string", default: "auto" },
      only: { type: "string", default: "" },
      keep: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const name = (["auto", "torch", "tensorflow", "wasm"] as const).find((n) => n === values.engine);
  if (values.help || !name) {
    process.stdout.write(usage);
    return values.help ? 0 : 2;
  }
  const found = findPython(values.python);
  if ("missing" in found) {
    process.stdout.write(
      `interop: skipped, no Python with transformers and timm: ${found.missing}\n`,
    );
    return 0;
  }
  const engine = await openEngine({ name, threads: 1, device: "cpu" });
  const folder = mkdtempSync(path.join(tmpdir(), "paddock-interop-"));
  try {
    const exchange = new Exchange(folder);
    const wanted = <T extends { name: string }>(models: readonly T[]): T[] =>
      models.filter((model) => model.name.includes(values.only));
    for (const model of wanted(exportedModels)) await exchange.exportModel(model);
    for (const model of wanted(foreignModels)) exchange.orderModel(model);
    const versions = exchange.runPython(found.python);
    process.stdout.write(`engine ${engine.name}; ${versions}\n`);
    const failures = await exchange.compare((line) => process.stdout.write(`${line}\n`));
    process.stdout.write(
      failures === 0 ? `all agree within ${tolerance}\n` : `${failures} failed\n`,
    );
    return failures === 0 ? 0 : 1;
  } finally {
    if (values.keep) process.stdout.write(`${folder}\n`);
    else rmSync(folder, { recursive: true, force: true });
  }
}

main().then(
  (code) => process.stdout.write("", () => process.exit(code)),
  (error: unknown) => {
    process.stderr.write(`${(error as Error).stack}\n`);
    process.exit(1);
  },
);
