/** An addon from a tarball instead of a compiler, as on a machine that has none. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execPath } from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resultInts } from "./native.js";
import { skipReason } from "./testing/torch.js";

const engine = fileURLToPath(new URL("..", import.meta.url));

/** Another clone: the same sources, nothing built, and a PATH without cmake and compilers. */
describe.skipIf(skipReason)(`a prebuilt addon ${skipReason ?? ""}`, () => {
  const folder = mkdtempSync(join(tmpdir(), "paddock-prebuilt-test-"));
  const clone = join(folder, "packages", "engine");
  const bin = join(folder, "bin");
  let tarball = "";

  beforeAll(() => {
    const files = [
      ...["build.mjs", "prebuilt.mjs", "CMakeLists.txt", "native", "package.json"],
      ...["build-pages.mjs", "small-addon.mjs", "pages"],
    ];
    for (const file of files) cpSync(join(engine, file), join(clone, file), { recursive: true });
    symlinkSync(join(engine, "..", "..", "node_modules"), join(folder, "node_modules"));
    const pack = join(engine, "package-addon.mjs");
    const packed = spawnSync(execPath, [pack, join(folder, "out")], { encoding: "utf8" });
    tarball = packed.stdout.trim();
    expect(tarball, packed.stderr).toMatch(/paddock-engine-\w+-\w+-torch[\d.]+\.tar\.gz$/);
    // What may be called: tar and its helper.
    spawnSync("mkdir", [bin]);
    for (const tool of ["tar", "gzip"]) {
      const { stdout } = spawnSync("sh", ["-c", `command -v ${tool}`], { encoding: "utf8" });
      symlinkSync(stdout.trim(), join(bin, tool));
    }
  });

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function build(source: string, extra: Readonly<Record<string, string>> = {}) {
    const stamp: { torch: { root: string } } = JSON.parse(
      readFileSync(join(engine, "build", "stamp.json"), "utf8"),
    );
    const system = stamp.torch.root === "system";
    const env = {
      PATH: bin,
      PADDOCK_PREBUILT: source,
      ...(system ? {} : { LIBTORCH: stamp.torch.root }),
      ...extra,
    };
    const args = [join(clone, "build.mjs"), "--strict"];
    const { status, stdout } = spawnSync(execPath, args, { encoding: "utf8", env });
    return { status, stdout };
  }

  test("is taken without a compiler, loads and computes; a second build finds it up to date", () => {
    expect(build(tarball)).toEqual({
      status: 0,
      stdout: expect.stringContaining("prebuilt addon taken"),
    });
    const script = `
      const native = require(process.argv[1]);
      native.shared[${resultInts}] = 2;
      const x = native.fromArray(Float32Array.of(3, 4), 0, 1);
      process.stdout.write(new Float32Array(native.read(native.square(x), 0)).join());`;
    const addon = join(clone, "build", "paddock_engine.node");
    const run = spawnSync(execPath, ["-e", script, addon], { encoding: "utf8" });
    expect(run.stdout, run.stderr).toBe("9,16");
    expect(build(tarball).stdout).toContain("up to date");
    const pages = [join(clone, "build-pages.mjs"), "--strict"];
    const { stdout } = spawnSync(execPath, pages, { encoding: "utf8", env: { PATH: bin } });
    expect(stdout).toBe("pages: addon is up to date\n");
  });

  test("is refused with the reason when it is damaged, absent or not for this machine", () => {
    rmSync(join(clone, "build"), { recursive: true, force: true });
    const wrong = { PADDOCK_PREBUILT_SHA256: "0".repeat(64) };
    const refused = build(tarball, wrong);
    expect(refused.status).toBe(1);
    expect(refused.stdout).toMatch(/not taken from .*: its sha256 is \w{64}, expected 0{64}/);
    expect(refused.stdout).toMatch(/no torch addon, wasm will be used: cmake is not installed/);
    expect(build(join(folder, "nothing.tar.gz")).stdout).toMatch(/not taken from .*ENOENT/);
    writeFileSync(join(clone, "native", "flat.h"), "// other sources\n");
    expect(build(tarball).stdout).toMatch(/not taken from .*: it was built from other sources/);
    expect(dirname(tarball)).toBe(join(folder, "out"));
  });

  test.each([
    ["platform", (stamp: Stamp) => ({ ...stamp, platform: "linux-riscv64" }), /for linux-riscv64/],
    [
      "libtorch",
      (stamp: Stamp) => ({ ...stamp, torch: { ...stamp.torch, version: "1.0.0" } }),
      /against libtorch 1\.0\.0/,
    ],
    [
      "CPU",
      (stamp: Stamp) => ({ ...stamp, defines: { PADDOCK_CPU_FLAGS: "-mavx2;-mavx9" } }),
      /needs a CPU with -mavx9/,
    ],
  ] as const)("is refused when it is for another %s", (_, change, reason) => {
    const other = mkdtempSync(join(folder, "other-"));
    spawnSync("tar", ["-xzf", tarball, "-C", other]);
    const stamp: Stamp = JSON.parse(readFileSync(join(other, "stamp.json"), "utf8"));
    writeFileSync(join(other, "stamp.json"), JSON.stringify(change(stamp)));
    const source = join(other, "other.tar.gz");
    spawnSync("tar", ["-czf", source, "-C", other, ...readdirSync(other)]);
    const hash = createHash("sha256").update(readFileSync(source)).digest("hex");
    writeFileSync(`${source}.sha256`, `${hash}  other.tar.gz\n`);
    expect(build(source).stdout).toMatch(reason);
  });
});

interface Stamp {
  readonly platform: string;
  readonly torch: { readonly version: string };
  readonly defines: Readonly<Record<string, string>>;
}
