/** The one door to the addon that asks for huge pages (pages/), which knows nothing of tensors. It is loaded without the rest of the engine. */
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

interface PagesNative {
  advise(bytes: Uint8Array): number | undefined;
}

/** Where the build puts the addon. */
const addonPath = fileURLToPath(new URL("../build/paddock_pages.node", import.meta.url));
/** "always [madvise] never": with never, the addon's wish is not heard. */
const settingPath = "/sys/kernel/mm/transparent_hugepage/enabled";

/**
 * Asks for huge pages (2 MiB) for memory that nobody has touched yet, as far as such pages fit into it. Returns the index of the first byte that
 * lies at one; undefined where there are none, or the addon is not built. What the system then has not free it replaces by pages of 4 KiB.
 */
export function adviseHugePages(bytes: Uint8Array): number | undefined {
  native ??= load();
  return native.advise(bytes);
}

let native: PagesNative | undefined;
const none: PagesNative = { advise: () => undefined };

function load(): PagesNative {
  try {
    if (fs.readFileSync(settingPath, "utf8").includes("[never]")) return none;
    return createRequire(import.meta.url)(addonPath);
  } catch {
    return none;
  }
}
