/** A copy of the sources with one change, in which the golden files are run: nothing in the repository is touched. */
import { spawn } from "node:child_process";
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import type { Mutation } from "./mutations.js";

export interface Verdict {
  readonly name: string;
  /** Golden files that fail with it. */
  readonly failed: readonly string[];
  /** Golden files in all. */
  readonly files: number;
}

export interface Sandbox {
  /** Runs all golden files with the mutation, or without one. @throws RangeError if its text is not found exactly once. */
  run(mutation: Mutation | null): Promise<Verdict>;
  close(): Promise<void>;
}

const root = fileURLToPath(new URL("../../..", import.meta.url));
const copied = ["packages", "services", "proto", "test", "package.json", "tsconfig.json"];

export async function makeSandbox(): Promise<Sandbox> {
  const folder = await copySources();
  return {
    run: async (mutation) => {
      if (!mutation) return verdictOf("none", folder);
      return await withMutation(folder, mutation, () => verdictOf(mutation.name, folder));
    },
    close: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Runs `work` while one file of the copy is changed. @throws RangeError if its text is not found exactly once */
export async function withMutation<T>(
  folder: string,
  mutation: Mutation,
  work: () => Promise<T>,
): Promise<T> {
  const file = path.join(folder, mutation.file);
  const source = await readFile(file, "utf8");
  await writeFile(file, mutated(source, mutation));
  try {
    return await work();
  } finally {
    await writeFile(file, source);
  }
}

/** A copy of all sources and of what they were compiled to, in a temporary folder; the caller removes it. */
export async function copySources(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "paddock-mutations-"));
  for (const name of copied) {
    await cp(path.join(root, name), path.join(folder, name), {
      recursive: true,
      filter: (source) => !["node_modules", "cmake"].includes(path.basename(source)),
    });
  }
  await linkModules(folder);
  await linkAddon(folder);
  return folder;
}

/** Every package as it is, but our own, which are the copies. */
async function linkModules(folder: string): Promise<void> {
  const from = path.join(root, "node_modules");
  const to = path.join(folder, "node_modules");
  await mkdir(path.join(to, "@paddock"), { recursive: true });
  for (const name of await readdir(from)) {
    if (name !== "@paddock") await symlink(path.join(from, name), path.join(to, name));
  }
  for (const name of await readdir(path.join(from, "@paddock"))) {
    const place = await realpath(path.join(from, "@paddock", name));
    await symlink(
      path.join(folder, path.relative(await realpath(root), place)),
      path.join(to, "@paddock", name),
    );
  }
}

/** The libtorch that the addon was built against. */
async function linkAddon(folder: string): Promise<void> {
  const torch = await realpath(path.join(root, ".torch")).catch(() => undefined);
  if (torch) await symlink(torch, path.join(folder, ".torch"));
}

function mutated(source: string, { name, find, replace }: Mutation): string {
  const parts = source.split(find);
  if (parts.length !== 2) {
    throw new RangeError(
      `mutation "${name}": expected its text once in the source, found ${parts.length - 1} times`,
    );
  }
  return parts.join(replace);
}

/** The sources are transformed as they are loaded (vite): nothing is compiled. */
async function verdictOf(name: string, folder: string): Promise<Verdict> {
  const report = path.join(folder, "report.json");
  const args = [
    "vitest",
    "run",
    "--config",
    "test/vitest.config.ts",
    "--project",
    "numerics",
    "test/numerics/golden.test.ts",
    "-t",
    "golden files on 'torch'",
    "--reporter=json",
    `--outputFile=${report}`,
  ];
  await rm(report, { force: true });
  await new Promise<void>((resolve, reject) => {
    const child = spawn("npx", args, { cwd: folder, stdio: "ignore" });
    child.on("error", reject);
    child.on("exit", () => resolve());
  });
  const { testResults } = JSON.parse(await readFile(report, "utf8")) as Report;
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const ran = tests.filter(({ status }) => status === "passed" || status === "failed");
  if (ran.length === 0) {
    throw new Error(`mutation "${name}": no golden file ran; is the torch engine set up?`);
  }
  const failed = ran.filter(({ status }) => status === "failed").map(({ title }) => title);
  return { name, failed, files: ran.length };
}

interface Report {
  readonly testResults: readonly {
    readonly assertionResults: readonly { readonly title: string; readonly status: string }[];
  }[];
}
