/** Runs a script of test/bench/peers that prints one JSON object. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export async function runPeer<T>(python: string, script: string, args: string[]): Promise<T> {
  const path = fileURLToPath(new URL(`../../../bench/peers/${script}`, import.meta.url));
  const child = spawn(python, [path, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  for await (const piece of child.stdout) text += String(piece);
  const code = child.exitCode ?? (await new Promise((resolve) => child.once("exit", resolve)));
  if (code !== 0) throw new Error(`${script} ended with ${code}`);
  return JSON.parse(text) as T;
}
