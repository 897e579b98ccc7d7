/** The one door to the addon that moves bytes between processes (collectives/), which knows nothing of tensors. */
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** A group of the addon. */
export type GroupHandle = { readonly group: unique symbol };

export interface CollectivesNative {
  open(rank: number, size: number, host: string): GroupHandle;
  listen(group: GroupHandle, timeoutMs: number): Promise<Uint8Array[]>;
  connect(
    group: GroupHandle,
    timeoutMs: number,
    addresses: readonly Uint8Array[],
  ): Promise<undefined>;
  exchange(
    group: GroupHandle,
    timeoutMs: number,
    key: string,
    outgoing: readonly Uint8Array[],
    incoming: readonly Uint8Array[],
  ): Promise<undefined>;
  close(group: GroupHandle, reason: string): void;
}

export type CollectivesLoad =
  | { readonly kind: "loaded"; readonly native: CollectivesNative }
  | { readonly kind: "absent"; readonly why: string };

/** Where the build puts the addon. */
const addonPath = fileURLToPath(new URL("../../build/paddock_collectives.node", import.meta.url));

/** Loads the addon into this thread, once. Says why not instead of throwing. */
export function loadCollectives(): CollectivesLoad {
  loaded ??= tryLoad();
  return loaded;
}

let loaded: CollectivesLoad | undefined;

function tryLoad(): CollectivesLoad {
  if (!fs.existsSync(addonPath)) {
    return { kind: "absent", why: "Gloo's addon is not built (npm run build:native says why)" };
  }
  try {
    const native: CollectivesNative = createRequire(import.meta.url)(addonPath);
    return { kind: "loaded", native };
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    return { kind: "absent", why: `Gloo's addon does not load: ${reason}` };
  }
}
