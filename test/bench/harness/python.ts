/** Finds the peers' python, in the order in which the engine's build looks for libtorch. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Unavailable } from "./bench.js";

/** A python that can import `packages`: the one given, else `.torch/bin/python`, else python3. Null if there is none. */
export function findPython(
  given: string | undefined,
  packages: readonly string[],
): string | undefined {
  const ownEnvironment = fileURLToPath(new URL("../../../../.torch/bin/python", import.meta.url));
  const candidates = given === undefined ? [ownEnvironment, "python3"] : [given];
  const script = `import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ${JSON.stringify(packages)})))`;
  return candidates.find(
    (python) => spawnSync(python, ["-c", script], { stdio: "ignore" }).status === 0,
  );
}

/** A python with PyTorch, or `Unavailable`. */
export function pythonWithTorch(given: string | undefined): string {
  const python = findPython(given, ["torch"]);
  if (python) return python;
  throw new Unavailable(
    `expected a python with PyTorch for the peer, found none (looked at ${given ?? ".torch/bin/python and python3"}); set PADDOCK_PYTHON or pass --python`,
  );
}
