/** Debian packages, installed without a question and without starting a service. Only as root on Debian or Ubuntu. */
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { run, tail, which } from "./command.mjs";
import { say, timed } from "./log.mjs";

const quiet = { DEBIAN_FRONTEND: "noninteractive", NEEDRESTART_MODE: "l", UCF_FORCE_CONFFOLD: "1" };
const servicePolicy = "/usr/sbin/policy-rc.d";

export function canInstallPackages() {
  return process.getuid?.() === 0 && existsSync("/etc/debian_version") && Boolean(which("apt-get"));
}

/** Installs what it can of `packages`; returns the names that could not be installed. */
export function installPackages(packages) {
  return timed("system", `apt-get install ${packages.join(" ")}`, () =>
    withoutServices(() => installOrSplit(packages)),
  );
}

async function installOrSplit(packages) {
  if (!hasPackageLists()) await aptGet("update");
  if (await install(packages)) return [];
  await aptGet("update");
  if (await install(packages)) return [];
  const failed = [];
  for (const name of packages) if (!(await install([name]))) failed.push(name);
  return failed;
}

async function install(packages) {
  const { code, output } = await aptGet("install", "--no-install-recommends", ...packages);
  if (code !== 0) say("system", `apt-get install ${packages.join(" ")} failed: ${tail(output, 2)}`);
  return code === 0;
}

function aptGet(...args) {
  const options = ["-y", "-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2"];
  return run("apt-get", [...options, ...args], { extraEnv: quiet });
}

function hasPackageLists() {
  try {
    return readdirSync("/var/lib/apt/lists").some((name) => /_Packages(\.\w+)?$/.test(name));
  } catch {
    return false;
  }
}

/** Debian's packages start their services when installed; the answer 101 of policy-rc.d (Debian policy 9.3.3) forbids it. */
async function withoutServices(work) {
  const ours = !existsSync(servicePolicy);
  if (ours) writeFileSync(servicePolicy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    return await work();
  } finally {
    if (ours) rmSync(servicePolicy, { force: true });
  }
}
