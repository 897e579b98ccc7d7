/** The one door to the addon that gives memory in huge pages (pages/), which knows nothing of tensors. It is loaded without the rest of the engine. */
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

interface PagesNative {
  allocate(bytes: number): ArrayBuffer | undefined;
}

/** Where the build puts the addon. */
const addonPath = fileURLToPath(new URL("../build/paddock_pages.node", import.meta.url));
/** "always [madvise] never": with never, the addon's wish is not heard. */
const settingPath = "/sys/kernel/mm/transparent_hugepage/enabled";

/**
 * At least so many bytes, zero, that begin at a huge page and lie in such pages as far as the system has them free; undefined where it has none, or
 * the addon is not built. Freed when it is collected.
 * @param bytes from 1 on
 */
export function hugePages(bytes: number): ArrayBuffer | undefined {
  native ??= load();
  return native.allocate(bytes);
}

let native: PagesNative | undefined;
const none: PagesNative = { allocate: () => undefined };

function load(): PagesNative {
  try {
    if (fs.readFileSync(settingPath, "utf8").includes("[never]")) return none;
    return createRequire(import.meta.url)(addonPath);
  } catch {
    return none;
  }
}
