/** Node's version, and the npm packages of the lock file. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { environment, must, run, tail } from "./command.mjs";
import { say, timed } from "./log.mjs";

const oldest = [20, 19];

/** Ends the process with the remedy when this Node is too old. */
export function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > oldest[0] || (major === oldest[0] && minor >= oldest[1])) {
    say("node", process.version);
    return;
  }
  process.stderr.write(
    `Node: expected version ${oldest.join(".")} or newer, received ${process.version}; install it from https://nodejs.org or with your version manager\n`,
  );
  process.exit(3);
}

/** Makes node_modules what package-lock.json says; nothing to do when it already is. */
export async function installNodeModules(root) {
  const lock = join(root, "package-lock.json");
  const stamp = join(root, "node_modules", ".paddock-lock-sha256");
  const hash = createHash("sha256").update(readFileSync(lock)).digest("hex");
  if (isFresh(root, lock, stamp, hash)) {
    say("npm", "node_modules is up to date");
  } else {
    await timed("npm", "npm ci", () => install(root));
  }
  writeFileSync(stamp, hash);
}

/**
 * `npm ci` refuses a lock file that does not name the optional packages of every other platform; `npm install --no-save`
 * takes the same pinned versions from it.
 */
async function install(root) {
  const options = ["--no-audit", "--no-fund"];
  const { code, output } = await run(...npmCommand(["ci", ...options]), { cwd: root });
  if (code === 0) return;
  if (!output.includes("EUSAGE")) throw new Error(`npm ci failed:\n${tail(output, 30)}`);
  say("npm", "npm ci refuses this package-lock.json; installing its versions with npm install");
  await npm(["install", "--no-save", ...options], root);
}

function isFresh(root, lock, stamp, hash) {
  if (existsSync(stamp)) return readFileSync(stamp, "utf8") === hash;
  // Installed by hand: npm writes this file last.
  const installed = join(root, "node_modules", ".package-lock.json");
  return existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs;
}

/** Runs the npm that runs us, or the one on PATH. Returns its output. */
export function npm(args, cwd) {
  return must(...npmCommand(args), { cwd });
}

function npmCommand(args) {
  const script = environment.npm_execpath;
  return script?.endsWith(".js") ? [process.execPath, [script, ...args]] : ["npm", args];
}
