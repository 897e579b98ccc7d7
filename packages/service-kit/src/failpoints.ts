/**
 * Faults on purpose: `failpoint(name)` marks a place of the protocol, PADDOCK_FAILPOINTS says what happens there. Off, which is without
 * that variable, a call is one comparison.
 *
 *   PADDOCK_FAILPOINTS="worker.prepared.sending=kill@3;coordinator.commit.appended=delay@5:400"
 *   PADDOCK_FAILPOINTS=@FILE      the same text in a file, which may change while the process runs
 *   PADDOCK_FAILPOINTS_LOG=FILE   a JSON line is appended before anything is done (default: stderr)
 *
 * `name=action@n:argument` acts once, when the point is passed for the n-th time since the text was read (default: the first); `@*` at
 * every pass:
 *   kill         SIGKILL to this process
 *   freeze:note  SIGSTOP to this process; somebody else must continue it, to whom the note is passed on in the log
 *   delay:ms     waits there
 *   error:code   throws a PaddockError of that code
 *   cut:port     breaks this process's TCP connections to and on that port
 *   duplicate    sends a message twice (points with the nature `message`)
 *   corrupt      flips a bit (`bytes`)
 *   torn         writes half, then SIGKILL (`write`)
 *   full         ENOSPC (`write`)
 *   log          does nothing but say that the point was passed; `*=log` for every point
 */
import { subscribe } from "node:diagnostics_channel";
import { appendFileSync, readFileSync, writeSync } from "node:fs";
import type { Socket } from "node:net";
import { env } from "node:process";
import { BroadcastChannel, isMainThread } from "node:worker_threads";
import { isErrorCode, PaddockError } from "@paddock/contract";
import {
  type FailpointName,
  failpoints,
  isFailpointName,
  type PointNature,
} from "./failpoint-names.js";

const actions = {
  kill: undefined,
  freeze: undefined,
  delay: undefined,
  error: undefined,
  cut: undefined,
  duplicate: "message",
  corrupt: "bytes",
  torn: "write",
  full: "write",
  log: undefined,
} as const satisfies Record<string, PointNature | undefined>;
export type FailAction = keyof typeof actions;

/** What a point has at hand for the actions that need something. */
export interface Material {
  /** Sends the message once more. */
  readonly again?: () => unknown;
  /** What passes the point; may be changed in place. */
  readonly bytes?: Uint8Array;
  /** Writes the first half of what is about to be written. */
  readonly half?: () => unknown;
}

export interface Arm {
  /** `*`: every point. */
  readonly name: FailpointName | "*";
  readonly action: FailAction;
  /** Acts at this pass, from 1; `everyPass`: at each. */
  readonly nth: number;
  /** Milliseconds, a code, a port, or "". */
  readonly argument: string;
}

const everyPass = 0;
const nothing: Material = {};

/** Passes the point. Await it: a delay waits there, and an error is thrown there. */
export function failpoint(name: FailpointName, material = nothing): void | Promise<void> {
  if (plan === undefined) return;
  const arm = plan.pass(name);
  if (arm) return act(name, arm, material);
}

/** The same where nothing can be awaited: a delay holds the whole thread. Knows no `torn`. */
export function failpointSync(name: FailpointName, material = nothing): void {
  if (plan === undefined) return;
  const arm = plan.pass(name);
  if (!arm) return;
  if (arm.action === "delay") {
    report(name, arm);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(arm.argument));
  } else actAtOnce(name, arm, material);
}

/** The arms of a text; `invalid-argument` for unknown names, actions and arguments, and for actions that a point does not have. */
export function parseFailpoints(text: string): Arm[] {
  return text
    .split(";")
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map(parseArm);
}

function parseArm(text: string): Arm {
  const [, name = "", action = "", nth = "1", argument = ""] =
    /^([^=]+)=([a-z]+)(?:@(\d+|\*))?(?::(.*))?$/.exec(text) ?? [];
  if (!isFailpointName(name) && name !== "*") {
    throw invalid(text, `a failpoint of failpoint-names.ts, received "${name}"`);
  }
  if (!Object.hasOwn(actions, action)) {
    throw invalid(text, `one of ${Object.keys(actions).join(", ")}, received "${action}"`);
  }
  const arm: Arm = {
    name,
    action: action as FailAction,
    nth: nth === "*" ? everyPass : Number(nth),
    argument,
  };
  const needed = actions[arm.action];
  if (name === "*" ? arm.action !== "log" : needed && natureOf(name) !== needed) {
    throw invalid(text, `an action that ${name} has, received "${action}"`);
  }
  const isNumeric = arm.action === "delay" || (arm.action === "cut" && argument !== "");
  if (isNumeric && !/^\d+$/.test(argument)) throw invalid(text, "a number behind the colon");
  if (arm.action === "error" && !isErrorCode(argument)) {
    throw invalid(text, `an error code, received "${argument}"`);
  }
  return arm;
}

function natureOf(name: FailpointName): PointNature | undefined {
  return (failpoints[name] as { readonly nature?: PointNature }).nature;
}

function invalid(text: string, expected: string): PaddockError {
  return new PaddockError(
    "invalid-argument",
    `PADDOCK_FAILPOINTS, "${text}": expected ${expected}; write name=action@nth:argument`,
  );
}

/** Which point does what in this thread, and how often each was passed. */
export class FailPlan {
  readonly #read: () => string;
  #text = "";
  #arms: readonly Arm[] = [];
  readonly #passes = new Map<FailpointName, number>();
  readonly #done = new Set<Arm>();

  /** @param read the text of the arms as it is now */
  constructor(read: () => string) {
    this.#read = read;
    this.#refresh();
  }

  /** The arm that acts at this pass, if one does. */
  pass(name: FailpointName): Arm | undefined {
    this.#refresh();
    const passes = (this.#passes.get(name) ?? 0) + 1;
    this.#passes.set(name, passes);
    const arm = this.#arms.find(
      (known) =>
        (known.name === name || known.name === "*") &&
        (known.nth === passes || known.nth === everyPass) &&
        !this.#done.has(known),
    );
    if (arm && arm.name !== "*" && arm.nth !== everyPass) this.#done.add(arm);
    return arm;
  }

  /** A new text starts to count anew. */
  #refresh(): void {
    const text = this.#read();
    if (text === this.#text) return;
    this.#arms = parseFailpoints(text);
    this.#text = text;
    this.#passes.clear();
    this.#done.clear();
  }
}

function planOf(text: string | undefined): FailPlan | undefined {
  if (!text) return undefined;
  const file = text.startsWith("@") ? text.slice(1) : undefined;
  const planned = new FailPlan(file === undefined ? () => text : () => textOf(file));
  if (isMainThread) watchSockets();
  return planned;
}

/** Whoever writes the file removes it when nothing is armed. */
function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

async function act(name: FailpointName, arm: Arm, material: Material): Promise<void> {
  if (arm.action === "delay") {
    report(name, arm);
    await new Promise((resolve) => setTimeout(resolve, Number(arm.argument)));
  } else if (arm.action === "torn") {
    report(name, arm);
    await material.half?.();
    process.kill(process.pid, "SIGKILL");
  } else actAtOnce(name, arm, material);
}

function actAtOnce(name: FailpointName, arm: Arm, { again, bytes }: Material): void {
  report(name, arm);
  switch (arm.action) {
    case "kill":
      process.kill(process.pid, "SIGKILL");
      break;
    case "freeze":
      process.kill(process.pid, "SIGSTOP");
      break;
    case "error":
      throw new PaddockError(
        arm.argument as PaddockError["code"],
        `failpoint ${name}: an error that was asked for`,
      );
    case "cut":
      cut(arm.argument);
      break;
    case "duplicate":
      again?.();
      break;
    case "corrupt":
      if (bytes?.length) bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
      break;
    case "full":
      throw Object.assign(new Error(`ENOSPC: no space left on device, failpoint ${name}`), {
        code: "ENOSPC",
      });
    case "delay":
    case "torn":
    case "log":
      break;
  }
}

/** Before the deed, which may be the last one; in one write, for several processes append to the file. */
function report(name: FailpointName, { action, nth, argument }: Arm): void {
  const { pid } = process;
  const line = `${JSON.stringify({ failpoint: name, action, nth, argument, pid, unixMs: Date.now() })}\n`;
  // biome-ignore lint/style/noProcessEnv: every thread and role reads it for itself
  const file = env["PADDOCK_FAILPOINTS_LOG"];
  if (file) appendFileSync(file, line);
  else writeSync(2, line);
}

/** Connections of this process, of either direction, as long as they are open. */
const sockets = new Set<Socket>();
const cutChannelName = "paddock-failpoints-cut";

function watchSockets(): void {
  const add = (message: unknown): void => {
    const { socket } = message as { readonly socket: Socket };
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  };
  subscribe("net.client.socket", add);
  subscribe("net.server.socket", add);
  const channel = new BroadcastChannel(cutChannelName);
  channel.onmessage = (message) => cut(String((message as { data: unknown }).data));
  channel.unref();
}

/** Sockets belong to the main thread. @param port "": all */
function cut(port: string): void {
  if (!isMainThread) {
    const channel = new BroadcastChannel(cutChannelName);
    channel.postMessage(port);
    channel.close();
    return;
  }
  for (const socket of sockets) {
    const ends = [socket.localPort, socket.remotePort];
    if (port === "" || ends.includes(Number(port))) socket.destroy();
  }
}

// biome-ignore lint/style/noProcessEnv: failpoints are on by this variable alone, in every thread and role
const plan = planOf(env["PADDOCK_FAILPOINTS"]);
