#!/usr/bin/env node
// The command people type. Compiled code may be missing on a fresh clone: then say how to get it.
import { existsSync } from "node:fs";

const main = new URL("../dist/main.js", import.meta.url);
if (!existsSync(main)) {
  process.stderr.write(
    "paddock: expected compiled code in services/cli/dist, found none; run: npm run setup\n",
  );
  process.exit(3);
}
await import(main.href);
