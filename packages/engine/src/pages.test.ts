/** Huge pages for this process' memory. */
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { adviseHugePages } from "./pages.js";

const mib = 2 ** 20;
const addonPath = fileURLToPath(new URL("../build/paddock_pages.node", import.meta.url));
const isBuilt = fs.existsSync(addonPath);
const setting = "/sys/kernel/mm/transparent_hugepage/enabled";
const isHeard = fs.existsSync(setting) && !fs.readFileSync(setting, "utf8").includes("[never]");

function bytesInHugePages(): number {
  const text = fs.readFileSync("/proc/self/smaps_rollup", "utf8");
  return 1024 * Number(/^AnonHugePages:\s+(\d+)/m.exec(text)?.[1]);
}

test.runIf(isBuilt && isHeard)(
  "memory, also shared, comes in huge pages when it is touched",
  () => {
    for (const Kind of [ArrayBuffer, SharedArrayBuffer]) {
      const before = bytesInHugePages();
      const bytes = new Uint8Array(new Kind(64 * mib));
      const first = adviseHugePages(bytes);
      expect(first).toBeGreaterThanOrEqual(0);
      expect(first).toBeLessThan(2 * mib);
      bytes.fill(7);
      // As far as the system has them free; here it always had.
      expect(bytesInHugePages() - before).toBeGreaterThanOrEqual(32 * mib);
    }
  },
);

test("memory into which none fits stays as it is", () => {
  expect(adviseHugePages(new Uint8Array(2 * mib - 1))).toBeUndefined();
  expect(adviseHugePages(new Uint8Array(0))).toBeUndefined();
});

test.runIf(isBuilt)("anything but bytes is an error", () => {
  const addon = createRequire(import.meta.url)(addonPath) as {
    advise(...args: unknown[]): unknown;
  };
  for (const wrong of [[], [8], ["8"], [{}], [new Float32Array(2 * mib)], [new ArrayBuffer(8)]]) {
    expect(() => addon.advise(...wrong)).toThrow("expected a Uint8Array");
  }
});
