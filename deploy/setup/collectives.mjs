/** Gloo for `exchange.kind=collective`. Without it that exchange goes through Redis, which is slower and nothing else. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { run, tail } from "./command.mjs";
import { say, timed } from "./log.mjs";

const headers = ["/usr/include", "/usr/local/include"];

/** Debian packages that are still needed to build its addon. */
export function collectivesPackages() {
  const found = headers.some((folder) => existsSync(join(folder, "gloo/transport/tcp/device.h")));
  return found ? [] : ["libgloo-dev"];
}

/** Builds the addon if it is stale. What it cannot build it says in one line. */
export async function buildCollectives(root) {
  const script = join(root, "packages", "engine", "build-collectives.mjs");
  const { output } = await timed("gloo", "packages/engine/build-collectives.mjs", () =>
    run(process.execPath, [script], { cwd: root }),
  );
  say("gloo", tail(output, 1));
}
