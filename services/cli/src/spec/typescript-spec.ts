/** A run spec as a TypeScript module: its default export, or what that function returns. */
import { register } from "node:module";
import { pathToFileURL } from "node:url";
import { PaddockError } from "@paddock/contract";

let registered = false;

/** The spec that the module at `file` (absolute) exports as default. Errors: `invalid-spec`. */
export async function importSpec(file: string): Promise<unknown> {
  if (!registered) register("./typescript-hooks.js", import.meta.url);
  registered = true;
  const exported = await importDefault(file);
  const value: unknown = typeof exported === "function" ? await exported() : exported;
  if (typeof value !== "object" || value === null) {
    throw new PaddockError(
      "invalid-spec",
      `${file}: expected a default export that is a run spec, or a function that returns one, received ${value === null ? "null" : typeof value}`,
    );
  }
  return value;
}

async function importDefault(file: string): Promise<unknown> {
  try {
    const module: { default?: unknown } = await import(pathToFileURL(file).href);
    return module.default;
  } catch (error) {
    throw unloadable(file, error);
  }
}

function unloadable(file: string, cause: unknown): PaddockError {
  return new PaddockError(
    "invalid-spec",
    `${file}: expected a module that can be imported, received: ${PaddockError.from(cause).message}`,
    { cause },
  );
}
