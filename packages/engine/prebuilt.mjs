/** The addon as a tarball, with that of pages/: how they are packed, and how they are taken instead of compiling. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";

/** An addon and the stamp by which its build finds it up to date. */
const pages = ["paddock_pages.node", "pages-stamp.json"];
const files = ["paddock_engine.node", "stamp.json", ...pages];

/**
 * Packs what lies in `buildDir` into `outDir`, with its sha256 beside it. Returns the tarball's path.
 * @throws Error if there is no addon or tar fails
 */
export function packAddon(buildDir, outDir) {
  const stamp = readStamp(path.join(buildDir, "stamp.json"));
  const name = `paddock-engine-${stamp.platform}-torch${stamp.torch.version}.tar.gz`;
  const tarball = path.join(outDir, name);
  fs.mkdirSync(outDir, { recursive: true });
  tar(["-czf", tarball, "-C", buildDir, ...files]);
  fs.writeFileSync(`${tarball}.sha256`, `${sha256(fs.readFileSync(tarball))}  ${name}\n`);
  return tarball;
}

/**
 * Puts the addon of the tarball at `source` (a path or a URL) into `buildDir`. Its hash must be `expected`, or what lies at
 * `<source>.sha256`; it must be of this platform, of these sources and this libtorch, and use no CPU instructions beyond these.
 * Returns undefined, or why it was not taken.
 * @param plan {torch, flags, sources, stamp} of this machine
 */
export async function takePrebuilt(source, expected, plan, buildDir) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "paddock-prebuilt-"));
  try {
    const bytes = await bytesAt(source);
    const wanted = expected ?? String(await bytesAt(`${source}.sha256`)).split(/\s/)[0];
    const received = sha256(bytes);
    if (received !== wanted) return `its sha256 is ${received}, expected ${wanted}`;
    const tarball = path.join(folder, "addon.tar.gz");
    fs.writeFileSync(tarball, bytes);
    tar(["-xzf", tarball, "-C", folder, ...files]);
    const reason = mismatch(readStamp(path.join(folder, "stamp.json")), plan);
    if (reason === undefined) install(folder, plan, buildDir);
    return reason;
  } catch (error) {
    return error.message;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

function mismatch(stamp, { torch, flags, sources }) {
  const platform = thisPlatform();
  if (stamp.platform !== platform) return `it is for ${stamp.platform}, this is ${platform}`;
  if (stamp.torch.version !== torch.version || stamp.torch.abi !== torch.abi) {
    return `it was built against libtorch ${stamp.torch.version} (ABI ${stamp.torch.abi}), this is ${torch.version} (${torch.abi})`;
  }
  const needed = stamp.defines.PADDOCK_CPU_FLAGS.split(";").filter((flag) => flag !== "");
  const missing = needed.filter((flag) => !flags.includes(flag));
  if (missing.length > 0) return `it needs a CPU with ${missing.join(" ")}`;
  return stamp.sources === sources ? undefined : "it was built from other sources";
}

/** The addon looks for libtorch beside itself when it is not where it was built: see CMakeLists.txt. */
function install(folder, { torch, stamp }, buildDir) {
  fs.mkdirSync(buildDir, { recursive: true });
  if (torch.root !== "system") {
    link(torch.root, path.join(buildDir, "torch"));
    link(path.join(torch.root, "..", "torch.libs"), path.join(buildDir, "torch.libs"));
  }
  for (const file of ["paddock_engine.node", ...pages]) {
    const place = path.join(buildDir, file);
    fs.copyFileSync(path.join(folder, file), `${place}.${process.pid}`);
    fs.renameSync(`${place}.${process.pid}`, place);
  }
  fs.writeFileSync(path.join(buildDir, "stamp.json"), stamp);
}

function link(target, place) {
  fs.rmSync(place, { force: true });
  fs.symlinkSync(target, place);
}

/** As in the tarballs' names, e.g. linux-x64. */
export function thisPlatform() {
  return `${os.platform()}-${os.arch()}`;
}

function readStamp(file) {
  return JSON.parse(fs.readFileSync(file, "utf8"));
}

async function bytesAt(source) {
  if (!/^[a-z]+:\/\//.test(source)) return fs.readFileSync(source);
  if (source.startsWith("file://")) return fs.readFileSync(fileURLToPath(source));
  const response = await fetch(source, { signal: AbortSignal.timeout(120_000) });
  if (!response.ok) throw new Error(`${source}: HTTP status ${response.status}`);
  return Buffer.from(await response.arrayBuffer());
}

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

function tar(args) {
  const { status, stderr, error } = spawnSync("tar", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`tar failed: ${(error?.message ?? stderr).trim()}`);
}
