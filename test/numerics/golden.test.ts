/** Every recorded file of the official code, on every engine: what `npm run golden -- test/fixtures/golden` runs. */
import { fileURLToPath } from "node:url";
import { beforeEach, describe, expect, test } from "vitest";
import { goldenFiles, runFile } from "../golden/run.js";
import { engines } from "./support/engines.js";

const folder = fileURLToPath(new URL("../fixtures/golden", import.meta.url));

describe.each(engines)("golden files on $name", ({ use, flat }) => {
  beforeEach(use);

  test.each(goldenFiles(folder).map((file) => [file.slice(folder.length + 1), file]))(
    "%s",
    async (_name, file) => {
      const { failures } = await runFile(folder, file as string, { flat });
      expect(failures).toEqual([]);
    },
  );
});
