import { defineConfig } from "vitest/config";

const seconds = 1_000;

export default defineConfig({
  root: new URL("..", import.meta.url).pathname,
  ssr: { resolve: { conditions: ["source"] } }, // packages resolve to src/: no build before a unit test
  test: {
    pool: "forks", // one process per file: native addons and TF.js backends are process-wide state
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["{packages,services}/*/src/**/*.test.ts", "proto/src/**/*.test.ts"],
          testTimeout: 60 * seconds,
        },
      },
      {
        extends: true,
        test: {
          name: "numerics",
          include: ["test/numerics/**/*.test.ts"],
          testTimeout: 120 * seconds,
        },
      },
      {
        extends: true,
        test: {
          name: "system",
          include: ["test/system/**/*.test.ts"],
          testTimeout: 300 * seconds,
          hookTimeout: 120 * seconds,
          fileParallelism: false,
        },
      },
    ],
  },
});
