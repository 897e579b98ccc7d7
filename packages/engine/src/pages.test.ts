/** Memory in huge pages, in this process. */
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { setImmediate as immediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { hugePages } from "./pages.js";

const mib = 2 ** 20;
const addonPath = fileURLToPath(new URL("../build/paddock_pages.node", import.meta.url));
const isBuilt = fs.existsSync(addonPath);
const setting = "/sys/kernel/mm/transparent_hugepage/enabled";
const hasHugePages =
  fs.existsSync(setting) && !fs.readFileSync(setting, "utf8").includes("[never]");

/** Bytes of this process in huge pages, or of all its memory. */
function memory(field: "AnonHugePages" | "Rss"): number {
  const text = fs.readFileSync("/proc/self/smaps_rollup", "utf8");
  return 1024 * Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(text)?.[1]);
}

test.runIf(isBuilt && hasHugePages)("memory is zero, as large as asked, and in huge pages", () => {
  const before = memory("AnonHugePages");
  const buffer = hugePages(64 * mib + 1);
  expect(buffer?.byteLength).toBe(66 * mib);
  const bytes = Buffer.from(buffer as ArrayBuffer);
  expect(bytes.equals(Buffer.alloc(66 * mib))).toBe(true);
  bytes.fill(7);
  // As far as the system has them free; here it always had.
  expect(memory("AnonHugePages") - before).toBeGreaterThanOrEqual(32 * mib);
});

test.runIf(isBuilt && hasHugePages)("what nobody holds any more is given back", async () => {
  const before = memory("Rss");
  for (let i = 0; i < 40; i++) {
    Buffer.from(hugePages(64 * mib) as ArrayBuffer).fill(i);
    await immediate();
  }
  // V8 counts them as its own: it collected long before they were 2.5 GiB.
  expect(memory("Rss") - before).toBeLessThan(1024 * mib);
});

test.runIf(isBuilt)(
  "without room there is none; anything but a number of bytes is an error",
  () => {
    const addon = createRequire(import.meta.url)(addonPath) as {
      allocate(...args: unknown[]): unknown;
    };
    expect(addon.allocate(2 ** 49)).toBeUndefined();
    for (const wrong of [[], [0], [-1], [Number.NaN], [Infinity], ["8"], [{}]]) {
      expect(() => addon.allocate(...wrong)).toThrow("expected a number of bytes from 1 on");
    }
  },
);
