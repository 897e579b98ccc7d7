/**
 * `npm run golden -- <folder> [--engine torch|tensorflow|wasm|auto] [--device cpu|cuda:0] [--threads N] [--json]`: compares Paddock with numbers
 * recorded from the official code. Exit codes: 0 all passed, 1 some failed, 2 usage, 3 the engine is not available.
 */
import { parseArgs } from "node:util";
import { openEngine } from "@paddock/engine";
import { type FileResult, goldenFiles, runFile } from "./run.js";

const usage = `npm run golden -- <folder or file> [options]

Compares Paddock with numbers recorded from the official DINO, DINOv2 and DINOv3 code.

  --engine NAME   torch, tensorflow, wasm or auto (default)
  --device NAME   cpu or cuda:<n> (torch; default cpu)
  --threads N     threads inside an operation (default 1)
  --json          one JSON object per file

Examples
  npm run golden -- test/fixtures/golden --engine torch
  npm run golden -- test/fixtures/golden/dinov3 --engine wasm --json
`;

const engineNames = ["auto", "torch", "tensorflow", "wasm"] as const;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      engine: { type: "string", default: "auto" },
      device: { type: "string", default: "cpu" },
      threads: { type: "string", default: "1" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const [folder] = positionals;
  const name = engineNames.find((known) => known === values.engine);
  if (values.help || !folder || positionals.length > 1 || !name) {
    (values.help ? process.stdout : process.stderr).write(usage);
    return values.help ? 0 : 2;
  }
  const files = goldenFiles(folder);
  const engine = await openEngine({ name, threads: Number(values.threads), device: values.device });
  if (!values.json) process.stdout.write(`engine ${engine.name} on ${engine.device}\n`);
  let passed = 0;
  for (const file of files) {
    const result = await runFile(folder, file, { flat: engine.flat });
    if (result.pass) passed++;
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : textOf(result));
  }
  const summary = { passed, failed: files.length - passed };
  process.stdout.write(
    values.json
      ? `${JSON.stringify(summary)}\n`
      : `${summary.passed} passed, ${summary.failed} failed\n`,
  );
  return summary.failed === 0 ? 0 : 1;
}

function textOf({ file, tensors, worst, pass, failures }: FileResult): string {
  const lines = failures.map(({ tensor, reason }) => `  ${file}: ${tensor}: ${reason}\n`);
  const verdict = pass ? "pass" : "FAIL";
  return `${lines.join("")}${file}, ${tensors} tensors, worst ${worst.toPrecision(3)} of tolerance, ${verdict}\n`;
}

main().then(
  (code) => process.stdout.write("", () => process.exit(code)),
  (error: unknown) => {
    const unavailable = (error as { code?: unknown }).code === "engine-unavailable";
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(unavailable ? 3 : 2);
  },
);
